// The operators unrolled::unroll and unrolled::unroll_backward, against LibTorch's stable ABI, on PyTorch's own threads.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "layer.h"

namespace unrolled {

int64_t threads() { return torch::stable::get_num_threads(); }

void parallel(int64_t n, double multiplications, const std::function<void(int64_t)>& f) {
  auto range = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) f(i);
  };
  if (n < 2 || multiplications < small_work) range(0, n);
  else torch::stable::parallel_for(0, n, 1, range);
}

}  // namespace unrolled

namespace {

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

// The cells by the number that unrolled/engines/fused.py gives them.
template <class F>
void with_cell(int64_t cell, const F& f) {
  switch (cell) {
    case 0: return f(Rnn<false>{});
    case 1: return f(Rnn<true>{});
    case 2: return f(Lstm{});
    case 3: return f(Gru{});
  }
  STD_TORCH_CHECK(false, "unrolled::unroll: there is no cell ", cell);
}

void check_tokens(const Call& call, int64_t vocabulary) {
  if (!call.tokens) return;
  for (int64_t i = 0; i < call.T * call.B; ++i)
    STD_TORCH_CHECK(call.tokens[i] >= 0 && call.tokens[i] < vocabulary, "token ", call.tokens[i], " at position ", i,
                    " is not in the table of ", vocabulary, " rows");
}

Call make_call(const Tensor& x, const Maybe& tokens, const Maybe& w_ih, const Maybe& bias_ih, const Tensor& w_hh,
               const Maybe& bias_hh, const Tensor& h0, const Maybe& c0, const Maybe& lengths, bool reverse) {
  Call call{};
  const Tensor& shape = tokens ? *tokens : x;
  call.T = shape.size(0), call.B = shape.size(1), call.H = w_hh.size(1);
  call.I = w_ih ? w_ih->size(1) : 0;
  (w_ih ? call.x : call.input_part) = floats(x);
  call.tokens = integers(tokens);
  call.w_ih = floats(w_ih), call.bias_ih = floats(bias_ih), call.w_hh = floats(w_hh), call.bias_hh = floats(bias_hh);
  call.state[0] = floats(h0), call.state[1] = floats(c0);
  call.lengths = integers(lengths), call.reverse = reverse;
  const int64_t GH = w_hh.size(0), last = x.size(x.dim() - 1);
  STD_TORCH_CHECK(last == (w_ih ? call.I : GH), "unrolled::unroll: the input has ", last, " columns");
  STD_TORCH_CHECK(!w_ih || w_ih->size(0) == GH, "unrolled::unroll: w_ih and w_hh differ in their rows");
  STD_TORCH_CHECK(h0.size(0) == call.B && h0.size(1) == call.H, "unrolled::unroll: h0 is not (B, H)");
  STD_TORCH_CHECK(!lengths || lengths->size(0) == call.B, "unrolled::unroll: lengths is not (B)");
  if (!w_ih) check_tokens(call, x.size(0));
  return call;
}

using Unrolled = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Unrolled unroll(Tensor x, Maybe tokens, Maybe w_ih, Maybe bias_ih, Tensor w_hh, Maybe bias_hh, Tensor h0, Maybe c0,
                Maybe lengths, int64_t cell, bool reverse, bool keep) {
  x = dense(x), tokens = dense(tokens), w_ih = dense(w_ih), bias_ih = dense(bias_ih);
  w_hh = dense(w_hh), bias_hh = dense(bias_hh), h0 = dense(h0), c0 = dense(c0);
  lengths = dense(lengths);
  const Call call = make_call(x, tokens, w_ih, bias_ih, w_hh, bias_hh, h0, c0, lengths, reverse);
  Tensor outputs = empty({call.T, call.B, call.H}, h0), h = empty({call.B, call.H}, h0), c, kept;
  with_cell(cell, [&](auto which) {
    using Cell = decltype(which);
    STD_TORCH_CHECK(w_hh.size(0) == Cell::gates * call.H, "unrolled::unroll: w_hh has ", w_hh.size(0), " rows");
    STD_TORCH_CHECK((Cell::states == 2) == c0.has_value(), "unrolled::unroll: c0 is for the LSTM");
    c = Cell::states == 2 ? empty({call.B, call.H}, h0) : empty({0}, h0);
    kept = keep && Cell::kept ? empty({call.T, call.B, Cell::kept * call.H}, h0) : empty({0}, h0);
    float* const final[2] = {out(h), out(c)};
    forward<Cell>(call, out(outputs), keep && Cell::kept ? out(kept) : nullptr, final);
  });
  return {outputs, h, c, kept};
}

using Seven = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Seven unroll_backward(Maybe d_outputs, Maybe d_h, Maybe d_c, Tensor outputs, Tensor kept, Tensor x, Maybe tokens, Maybe w_ih,
                       Tensor w_hh, Tensor h0, Maybe c0, Maybe lengths, int64_t cell, bool reverse, bool need_x) {
  d_outputs = dense(d_outputs), d_h = dense(d_h), d_c = dense(d_c);
  x = dense(x), tokens = dense(tokens), w_ih = dense(w_ih), w_hh = dense(w_hh);
  h0 = dense(h0), c0 = dense(c0), lengths = dense(lengths);
  const Call call = make_call(x, tokens, w_ih, {}, w_hh, {}, h0, c0, lengths, reverse);
  const int64_t GH = w_hh.size(0), H = call.H;
  Tensor d_xg = empty({call.T, call.B, GH}, h0), d_x = d_xg, d_w_ih = empty({0}, h0);
  if (w_ih) {
    d_x = need_x ? empty({call.T, call.B, call.I}, h0) : empty({0}, h0);
    d_w_ih = empty({GH, call.I}, h0);
  } else if (tokens) {
    d_x = empty({x.size(0), GH}, h0);
  }
  Tensor d_bias_ih = empty({GH}, h0), d_bias_hh = empty({GH}, h0), d_w_hh = empty({GH, H}, h0);
  Tensor d_h0 = empty({call.B, H}, h0), d_c0 = empty({0}, h0);
  with_cell(cell, [&](auto which) {
    using Cell = decltype(which);
    Tensor d_inner = Cell::inner ? empty({call.T, call.B, H}, h0) : empty({0}, h0);
    if (Cell::states == 2) d_c0 = empty({call.B, H}, h0);
    const Gradients g{floats(outputs), floats(kept), floats(d_outputs), {floats(d_h), floats(d_c)},
                      out(d_xg),       out(d_inner), {out(d_h0), out(d_c0)}};
    backward<Cell>(call, g,
                   {w_ih && !need_x ? nullptr : out(d_x), out(d_w_ih), out(d_bias_ih), out(d_w_hh), out(d_bias_hh),
                    tokens ? x.size(0) : 0});
  });
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
