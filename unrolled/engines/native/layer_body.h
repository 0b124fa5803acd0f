// What layer.h declares. Included only where a cell is compiled.
#pragma once

#include "layer.h"

namespace unrolled {

// Where each thread's slice of the batch begins, so that all have about as many timesteps to do.
inline std::vector<int64_t> slices(const Call& call, int64_t gates) {
  const double work = double(call.T) * call.B * gates * call.H * (call.H + call.I);
  const int64_t n = std::max<int64_t>(1, work < small_work ? 1 : std::min(threads(), call.B));
  int64_t total = 0, done = 0;
  for (int64_t row = 0; row < call.B; ++row) total += call.length(row) + 1;
  std::vector<int64_t> edges{0};
  for (int64_t row = 0; row < call.B; ++row) {
    if (int64_t(edges.size()) < n && done * n >= total * int64_t(edges.size())) edges.push_back(row);
    done += call.length(row) + 1;
  }
  if (call.B) edges.push_back(call.B);
  return edges;
}

// Rows [0, M) of a product cut into a part for each thread.
inline void parallel_product(int64_t M, int64_t N, int64_t K,
                             const std::function<void(int64_t, int64_t, float*)>& f) {
  const int64_t tiles = (M + tall - 1) / tall;
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads(), tiles));
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
  std::vector<float> d_bias(std::max<int64_t>(1, n) * sums, 0.0f);
  parallel(n, 1e9, [&](int64_t i) {
    backward_slice<Cell>(call, w_hh, edges[i], edges[i + 1], g, d_bias.data() + i * sums);
  });
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < sums; ++j) d_bias[j] += d_bias[i * sums + j];
  std::copy_n(d_bias.data(), GH, to.d_bias_ih);
  std::copy_n(d_bias.data(), GH, to.d_bias_hh);
  if (Cell::inner) std::copy_n(d_bias.data() + GH, H, to.d_bias_hh + own);

  auto d_xg = [&](int64_t k) { return g.d_xg + k * GH; };
  // a padded timestep has gradient zero, and what stands there may be NaN: zeros in its place
  const std::vector<float> zeros(call.lengths ? std::max(H, I) : 0, 0.0f);
  auto padded = [&](int64_t k) { return call.lengths && !call.alive(k / B, k % B); };
  auto x_row = [&](int64_t k) { return padded(k) ? zeros.data() : call.x + k * I; };
  auto h_before = [&](int64_t k) { return padded(k) ? zeros.data() : call.h_before(g.outputs, k / B, k % B); };
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
      product(from, until, I, N, transposed(d_xg), x_row, to.d_w_ih, I, space);
    });
    if (to.d_x)
      parallel_product(N, I, GH, [&](int64_t from, int64_t until, float* space) {
        product(from, until, I, GH, straight(d_xg), [&](int64_t k) { return call.w_ih + k * I; }, to.d_x, I, space);
      });
  } else if (to.vocabulary) {  // each thread adds up its own columns, so that none disturbs another
    const int64_t parts = std::min<int64_t>(threads(), (GH + 63) / 64);
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

}  // namespace unrolled
