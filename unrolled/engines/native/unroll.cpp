// The operators unrolled::unroll and unrolled::unroll_backward: checks, slices, packing, and the products that do not wait
// for the state. Against LibTorch's stable ABI, on PyTorch's own threads.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "unroll.h"

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

// Run f(i) for i in [0, n), on PyTorch's threads where there is enough to do.
template <class F>
void parallel(int64_t n, double operations, const F& f) {
  auto range = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) f(i);
  };
  if (n == 1 || operations < 3e5) range(0, n);
  else torch::stable::parallel_for(0, n, 1, range);
}

// Where each thread's slice of the batch begins, so that all have about as many timesteps to do.
std::vector<int64_t> slices(const Call& call, int64_t gates) {
  const double work = double(call.T) * call.B * gates * call.H * (call.H + call.I);
  const int64_t threads = work < 3e5 ? 1 : torch::stable::get_num_threads();
  const int64_t n = std::max<int64_t>(1, std::min(threads, call.B));
  int64_t total = 0, done = 0;
  for (int64_t row = 0; row < call.B; ++row) total += call.length(row) + 1;
  std::vector<int64_t> edges{0};
  for (int64_t row = 0; row < call.B; ++row) {
    if (int64_t(edges.size()) < n && done * n >= total * int64_t(edges.size())) edges.push_back(row);
    done += call.length(row) + 1;
  }
  edges.push_back(call.B);
  return edges;
}

// Rows [0, M) of a product cut into a part for each thread.
template <class F>
void parallel_product(int64_t M, int64_t N, int64_t K, const F& f) {
  const int64_t tiles = (M + tall - 1) / tall;
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(torch::stable::get_num_threads(), tiles));
  parallel(parts, double(M) * N * K, [&](int64_t i) {
    const int64_t from = tiles * i / parts * tall, to = std::min(M, tiles * (i + 1) / parts * tall);
    f(from, to, scratch(1, product_space(N)));
  });
}

// Packs W (G·H, K), or a bias (K = 1), and moves `space` behind it.
template <class Cell>
const float* pack_columns(const Call& call, const float* w, int64_t K, float*& space) {
  const Columns<Cell> columns{call.H};
  float* packed = space;
  space += columns.all() * K;
  parallel((call.H + panel - 1) / panel, double(columns.all()) * K, [&](int64_t i) {
    columns.pack(w, K, i * panel, std::min(call.H, (i + 1) * panel), packed);
  });
  return packed;
}

template <class Cell>
void forward(const Call& call, float* outputs, float* kept, float* const final[2]) {
  float* space = scratch(2, Columns<Cell>{call.H}.all() * (call.H + 1 + (call.I ? call.I + 1 : 0)));
  Weights<Cell> w{{call.H}, {}, {}, {}, {}};
  w.hh = pack_columns<Cell>(call, call.w_hh, call.H, space);
  w.bias_hh = pack_columns<Cell>(call, call.bias_hh, 1, space);
  if (call.I) {
    w.ih = pack_columns<Cell>(call, call.w_ih, call.I, space);
    w.bias_ih = pack_columns<Cell>(call, call.bias_ih, 1, space);
  }
  const auto edges = slices(call, Cell::gates);
  parallel(edges.size() - 1, 1e9, [&](int64_t i) {
    forward_slice<Cell>(call, w, edges[i], edges[i + 1], outputs, kept, final);
  });
}

struct Results {
  float *d_x, *d_w_ih, *d_bias_ih, *d_w_hh, *d_bias_hh;
  int64_t vocabulary;  // rows of the table of input parts
};

template <class Cell>
void backward(const Call& call, const Gradients& g, const Results& to) {
  constexpr int64_t G = Cell::gates;
  const int64_t H = call.H, I = call.I, B = call.B, GH = G * H, N = call.T * B, own = GH - (Cell::inner ? H : 0);
  float* w_hh = scratch(2, GH * round_up(H, width));
  parallel(G, double(GH) * H, [&](int64_t i) {
    pack_rows(i * H, (i + 1) * H, GH, H, [&](int64_t k) { return call.w_hh + k * H; }, w_hh);
  });
  const auto edges = slices(call, G);
  const int64_t n = edges.size() - 1, sums = GH + H;
  std::vector<float> d_bias(n * sums, 0.0f);
  parallel(n, 1e9, [&](int64_t i) {
    backward_slice<Cell>(call, w_hh, edges[i], edges[i + 1], g, d_bias.data() + i * sums);
  });
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < sums; ++j) d_bias[j] += d_bias[i * sums + j];
  std::copy_n(d_bias.data(), GH, to.d_bias_ih);
  std::copy_n(d_bias.data(), GH, to.d_bias_hh);
  if (Cell::inner) std::copy_n(d_bias.data() + GH, H, to.d_bias_hh + own);

  auto d_xg = [&](int64_t k) { return g.d_xg + k * GH; };
  auto h_before = [&](int64_t k) {
    const int64_t t = k / B, row = k % B;  // a padded timestep has gradient zero: any finite row will do
    return call.alive(t, row) ? call.h_before(g.outputs, t, row) : call.state[0] + row * H;
  };
  parallel_product(own, H, N, [&](int64_t from, int64_t until, float* space) {
    product(from, until, H, N, transposed(d_xg), h_before, to.d_w_hh, H, space);
  });
  if (Cell::inner)
    parallel_product(H, H, N, [&](int64_t from, int64_t until, float* space) {
      auto d_inner = [&](int64_t k) { return g.d_inner + k * H; };
      product(from, until, H, N, transposed(d_inner), h_before, to.d_w_hh + own * H, H, space);
    });
  if (call.I) {
    parallel_product(GH, I, N, [&](int64_t from, int64_t until, float* space) {
      product(from, until, I, N, transposed(d_xg), [&](int64_t k) { return call.x + k * I; }, to.d_w_ih, I, space);
    });
    if (to.d_x)
      parallel_product(N, I, GH, [&](int64_t from, int64_t until, float* space) {
        product(from, until, I, GH, straight(d_xg), [&](int64_t k) { return call.w_ih + k * I; }, to.d_x, I, space);
      });
  } else if (to.vocabulary) {  // each thread adds up its own columns, so that none disturbs another
    const int64_t parts = std::min<int64_t>(torch::stable::get_num_threads(), (GH + 63) / 64);
    parallel(parts, double(N) * GH, [&](int64_t i) {
      const int64_t from = GH * i / parts, until = GH * (i + 1) / parts;
      for (int64_t v = 0; v < to.vocabulary; ++v) std::fill(to.d_x + v * GH + from, to.d_x + v * GH + until, 0.0f);
      for (int64_t k = 0; k < N; ++k) {
        const float* d = d_xg(k);
        float* sum = to.d_x + call.tokens[k] * GH;
        for (int64_t j = from; j < until; ++j) sum[j] += d[j];
      }
    });
  }
}

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

Seven unroll_backward(Tensor d_outputs, Tensor d_h, Tensor d_c, Tensor outputs, Tensor kept, Tensor x, Maybe tokens,
                      Maybe w_ih, Tensor w_hh, Tensor h0, Maybe c0, Maybe lengths, int64_t cell, bool reverse, bool need_x) {
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
      "unroll_backward(Tensor d_outputs, Tensor d_h, Tensor d_c, Tensor outputs, Tensor kept, Tensor x, Tensor? tokens, "
      "Tensor? w_ih, Tensor w_hh, Tensor h0, Tensor? c0, Tensor? lengths, int cell, bool reverse, bool need_x) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(unrolled, CPU, m) {
  m.impl("unroll", TORCH_BOX(&unroll));
  m.impl("unroll_backward", TORCH_BOX(&unroll_backward));
}
