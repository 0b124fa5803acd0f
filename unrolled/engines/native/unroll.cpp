// The operators unrolled::unroll and unrolled::unroll_backward, against LibTorch's stable ABI, on PyTorch's own threads.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <atomic>
#include <exception>
#include <initializer_list>
#include <optional>
#include <tuple>

#include "checks.h"
#include "layer.h"

namespace unrolled {

int64_t threads() { return torch::stable::get_num_threads(); }

void parallel(int64_t n, double multiplications, const std::function<void(int64_t)>& f) {
  std::exception_ptr error;  // the first one, from whichever thread: it must not leave a thread that is not the caller's
  std::atomic<bool> failed{false};
  auto range = [&](int64_t from, int64_t to) {
    try {
      for (int64_t i = from; i < to && !failed; ++i) f(i);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
  if (n < 2 || multiplications < small_work) range(0, n);
  else torch::stable::parallel_for(0, n, 1, range);
  if (error) std::rethrow_exception(error);
}

}  // namespace unrolled

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;
using namespace unrolled;

const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
const float* floats(const Maybe& t) { return t ? floats(*t) : nullptr; }
const int64_t* integers(const Maybe& t) { return t ? static_cast<const int64_t*>(t->const_data_ptr()) : nullptr; }
float* out(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }
Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }
Maybe dense(const Maybe& t) { return t ? Maybe(dense(*t)) : t; }
Tensor empty(std::initializer_list<int64_t> sizes, const Tensor& like) { return torch::stable::new_empty(like, sizes); }

constexpr Checks check("unrolled::unroll");

void check_integers(const Call& call, int64_t vocabulary) {
  for (int64_t i = 0; call.tokens && i < call.T * call.B; ++i)
    STD_TORCH_CHECK(call.tokens[i] >= 0 && call.tokens[i] < vocabulary, "unrolled::unroll: token ", call.tokens[i],
                    " at position ", i, " is not in the table of ", vocabulary, " rows");
  for (int64_t row = 0; call.lengths && row < call.B; ++row)
    STD_TORCH_CHECK(call.lengths[row] >= 0 && call.lengths[row] <= call.T, "unrolled::unroll: length ",
                    call.lengths[row], " of row ", row, " is not between 0 and ", call.T);
}

template <class Cell>
Call make_call(const Tensor& x, const Maybe& tokens, const Maybe& w_ih, const Maybe& bias_ih, const Tensor& w_hh,
               const Maybe& bias_hh, const Tensor& h0, const Maybe& c0, const Maybe& lengths, bool reverse) {
  STD_TORCH_CHECK(!tokens || !w_ih, "unrolled::unroll: tokens pick rows of input parts, so that w_ih is left out");
  STD_TORCH_CHECK(w_ih || !bias_ih, "unrolled::unroll: bias_ih is added with w_ih, which is not there");
  STD_TORCH_CHECK((Cell::states == 2) == c0.has_value(), "unrolled::unroll: c0 is for the LSTM, which needs it");
  check("w_hh", w_hh, {any, any}), check("w_ih", w_ih, {any, any});
  Call call{};
  const int64_t H = w_hh.size(1), GH = Cell::gates * H, I = w_ih ? w_ih->size(1) : 0;
  STD_TORCH_CHECK(H > 0 && (I > 0 || !w_ih), "unrolled::unroll: a weight has no columns");
  check("w_hh", w_hh, {GH, H}), check("w_ih", w_ih, {GH, I});
  check("bias_ih", bias_ih, {GH}), check("bias_hh", bias_hh, {GH});
  check("tokens", tokens, {any, any}, ScalarType::Long);
  if (tokens) check("x", x, {any, GH});
  else check("x", x, {any, any, w_ih ? I : GH});
  const Tensor& shape = tokens ? *tokens : x;
  call.T = shape.size(0), call.B = shape.size(1), call.H = H, call.I = I;
  check("h0", h0, {call.B, H}), check("c0", c0, {call.B, H}), check("lengths", lengths, {call.B}, ScalarType::Long);
  (w_ih ? call.x : call.input_part) = floats(x);
  call.tokens = integers(tokens);
  call.w_ih = floats(w_ih), call.bias_ih = floats(bias_ih), call.w_hh = floats(w_hh), call.bias_hh = floats(bias_hh);
  call.state[0] = floats(h0), call.state[1] = floats(c0);
  call.lengths = integers(lengths), call.reverse = reverse;
  check_integers(call, x.size(0));
  return call;
}

using Unrolled = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Unrolled unroll(Tensor x, Maybe tokens, Maybe w_ih, Maybe bias_ih, Tensor w_hh, Maybe bias_hh, Tensor h0, Maybe c0,
                Maybe lengths, int64_t cell, bool reverse, bool keep) {
  x = dense(x), tokens = dense(tokens), w_ih = dense(w_ih), bias_ih = dense(bias_ih);
  w_hh = dense(w_hh), bias_hh = dense(bias_hh), h0 = dense(h0), c0 = dense(c0);
  lengths = dense(lengths);
  Tensor outputs, h, c, kept;
  const bool known = with_cell(cell, [&](auto which) {
    using Cell = decltype(which);
    const Call call = make_call<Cell>(x, tokens, w_ih, bias_ih, w_hh, bias_hh, h0, c0, lengths, reverse);
    outputs = empty({call.T, call.B, call.H}, h0), h = empty({call.B, call.H}, h0);
    c = Cell::states == 2 ? empty({call.B, call.H}, h0) : empty({0}, h0);
    kept = keep && Cell::kept ? empty({call.T, call.B, Cell::kept * call.H}, h0) : empty({0}, h0);
    float* const final[2] = {out(h), out(c)};
    forward<Cell>(call, out(outputs), keep && Cell::kept ? out(kept) : nullptr, final);
  });
  STD_TORCH_CHECK(known, "unrolled::unroll: there is no cell ", cell);
  return {outputs, h, c, kept};
}

using Seven = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Seven unroll_backward(Maybe d_outputs, Maybe d_h, Maybe d_c, Tensor outputs, Tensor kept, Tensor x, Maybe tokens, Maybe w_ih,
                       Tensor w_hh, Tensor h0, Maybe c0, Maybe lengths, int64_t cell, bool reverse, bool need_x) {
  d_outputs = dense(d_outputs), d_h = dense(d_h), d_c = dense(d_c), outputs = dense(outputs), kept = dense(kept);
  x = dense(x), tokens = dense(tokens), w_ih = dense(w_ih), w_hh = dense(w_hh);
  h0 = dense(h0), c0 = dense(c0), lengths = dense(lengths);
  Tensor d_x, d_w_ih, d_bias_ih, d_bias_hh, d_w_hh, d_h0, d_c0;
  const bool known = with_cell(cell, [&](auto which) {
    using Cell = decltype(which);
    const Call call = make_call<Cell>(x, tokens, w_ih, {}, w_hh, {}, h0, c0, lengths, reverse);
    const int64_t T = call.T, B = call.B, H = call.H, GH = Cell::gates * H;
    check("outputs", outputs, {T, B, H}), check("d_outputs", d_outputs, {T, B, H});
    check("d_h", d_h, {B, H});
    if (Cell::states == 2) check("d_c", d_c, {B, H});
    if (Cell::kept) check("kept", kept, {T, B, Cell::kept * H});
    Tensor d_xg = empty({T, B, GH}, h0), d_inner = Cell::inner ? empty({T, B, H}, h0) : empty({0}, h0);
    d_x = w_ih ? need_x ? empty({T, B, call.I}, h0) : empty({0}, h0) : tokens ? empty({x.size(0), GH}, h0) : d_xg;
    d_w_ih = w_ih ? empty({GH, call.I}, h0) : empty({0}, h0), d_w_hh = empty({GH, H}, h0);
    d_bias_ih = empty({GH}, h0), d_bias_hh = empty({GH}, h0);
    d_h0 = empty({B, H}, h0), d_c0 = Cell::states == 2 ? empty({B, H}, h0) : empty({0}, h0);
    const Gradients g{floats(outputs), floats(kept), floats(d_outputs), {floats(d_h), floats(d_c)},
                      out(d_xg),       out(d_inner), {out(d_h0), out(d_c0)}};
    backward<Cell>(call, g,
                   {w_ih && !need_x ? nullptr : out(d_x), out(d_w_ih), out(d_bias_ih), out(d_w_hh), out(d_bias_hh),
                    tokens ? x.size(0) : 0});
  });
  STD_TORCH_CHECK(known, "unrolled::unroll: there is no cell ", cell);
  return {d_x, d_w_ih, d_bias_ih, d_w_hh, d_bias_hh, d_h0, d_c0};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(unrolled, m) {
  m.def(
      "unroll(Tensor x, Tensor? tokens, Tensor? w_ih, Tensor? bias_ih, Tensor w_hh, Tensor? bias_hh, Tensor h0, "
      "Tensor? c0, Tensor? lengths, int cell, bool reverse, bool keep) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "unroll_backward(Tensor? d_outputs, Tensor? d_h, Tensor? d_c, Tensor outputs, Tensor kept, Tensor x, "
      "Tensor? tokens, Tensor? w_ih, Tensor w_hh, Tensor h0, Tensor? c0, Tensor? lengths, int cell, bool reverse, bool need_x) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(unrolled, CPU, m) {
  m.impl("unroll", TORCH_BOX(&unroll));
  m.impl("unroll_backward", TORCH_BOX(&unroll_backward));
}
