// A cell unrolled over time, forward and backward: written once for every cell of cells.h.
//
// Threads take slices of the batch, so none waits for another between timesteps. Within a slice, units are computed a
// panel at a time: recurrent product, then the elementwise part while its results are still near.
#pragma once

#include <memory>
#include <vector>

#include "cells.h"
#include "gemm.h"

namespace unrolled {

// A call. Shapes: T timesteps, B rows of the batch, I inputs, H units, G gates. Null where absent.
struct Call {
  int64_t T, B, I, H;
  const float* x;            // (T, B, I), multiplied by w_ih here; or, where I is 0, …
  const float* input_part;   // … rows of G·H floats, one for each timestep and row of the batch,
  const int64_t* tokens;     // or picked by these (T, B)
  const float *w_ih, *bias_ih, *w_hh, *bias_hh;
  const float* state[2];     // (B, H) before the first timestep
  const int64_t* lengths;    // (B)
  bool reverse;

  int64_t length(int64_t row) const { return lengths ? lengths[row] : T; }
  int64_t time(int64_t step) const { return reverse ? T - 1 - step : step; }
  bool alive(int64_t t, int64_t row) const { return !lengths || t < lengths[row]; }
  const float* input_row(int64_t t, int64_t row, int64_t gates) const {
    const int64_t n = t * B + row;
    return input_part + (tokens ? tokens[n] : n) * gates * H;
  }
  // h before timestep t of a row, given the outputs (T, B, H)
  const float* h_before(const float* outputs, int64_t t, int64_t row) const {
    const int64_t first = reverse ? length(row) - 1 : 0;
    if (t == first) return state[0] + row * H;
    return outputs + ((reverse ? t + 1 : t - 1) * B + row) * H;
  }
  // rows of [begin, end) up to the last one that is alive at t: with rows sorted by length, padding costs nothing
  int64_t active(int64_t t, int64_t begin, int64_t end) const {
    while (end > begin && !alive(t, end - 1)) --end;
    return end - begin;
  }
};

// Scratch memory that a thread keeps from call to call.
inline float* scratch(int slot, int64_t floats) {
  thread_local std::vector<float> kept[3];
  if (int64_t(kept[slot].size()) < floats + 16) kept[slot].resize(floats + 16);
  const auto address = reinterpret_cast<uintptr_t>(kept[slot].data());
  return kept[slot].data() + (64 - address % 64) % 64 / sizeof(float);
}

// Ask for a panel's cache lines, to read (0) or to write (1). A prefetch of memory that is not ours does nothing.
template <int write>
inline void fetch(const float* p) {
  for (int i = 0; i < panel; i += 16) __builtin_prefetch(p + i, write);
}

// How the columns of a packed recurrent or input weight are ordered: blocks of units, in each the gates, so that all gates
// of a unit are computed together. A block has `panel` units, the last one may have `width`.
template <class Cell>
struct Columns {
  int64_t H;
  int64_t all() const { return Cell::gates * round_up(H, width); }
  int64_t units(int64_t unit) const { return std::min<int64_t>(panel, round_up(H - unit, width)); }
  int64_t at(int64_t unit, int gate) const { return unit * Cell::gates + gate * units(unit); }  // unit: first of a block

  // The units [begin, end) of W (G·H, K), or of a bias (K = 1), to [panel][k][unit]; without W zeros.
  void pack(const float* w, int64_t K, int64_t begin, int64_t end, float* packed) const {
    for (int64_t unit = begin; unit < end; unit += panel)
      for (int gate = 0; gate < Cell::gates; ++gate) {
        float* to = packed + at(unit, gate) * K;
        const int64_t columns = units(unit), valid = w ? std::min(columns, H - unit) : 0;
        if (valid < columns) std::fill_n(to, K * columns, 0.0f);
        if (valid) turn(valid, K, [&](int64_t n) { return w + (gate * H + unit + n) * K; }, to, columns);
      }
  }

  // [M rows × the gates of `count` units from `unit`] = bias + A · packed, as [panel][M][panel]
  void multiply(int64_t M, int64_t unit, int64_t count, const float* a, int64_t lda, int64_t K, const float* packed,
                const float* bias, float* c) const {
    const int64_t whole = std::min(count, in_full_panels(H - unit));
    const int64_t first = unit * Cell::gates;
    panels(2, M, whole / panel * Cell::gates, a, lda, K, packed + first * K, bias + first, c, panel, M * panel);
    if (whole < count && unit + whole < H) {
      const int64_t rest = first + whole * Cell::gates;
      panels(1, M, Cell::gates, a, lda, K, packed + rest * K, bias + rest, c + whole * Cell::gates * M, panel, M * panel);
    }
  }
};

// A weight or bias packed for the forward pass.
template <class Cell>
struct Weights {
  Columns<Cell> columns;
  const float *ih, *hh, *bias_ih, *bias_hh;
};

template <class Cell>
void forward_slice(const Call& call, const Weights<Cell>& w, int64_t begin, int64_t end, float* outputs, float* kept,
                   float* const final[2]) {
  constexpr int G = Cell::gates;
  const int64_t H = call.H, B = call.B, rows = end - begin;
  const int64_t ld = round_up(H, width) + width, ldx = round_up(call.I, width) + width;
  const int64_t group = rows <= 4 ? 4 * panel : panel;         // units that are computed together
  const int64_t chunk = call.I ? (rows < 24 ? 24 / rows : 1) : 0;  // timesteps whose input parts are computed together
  const int64_t all = w.columns.all();
  float* memory = scratch(0, (Cell::states + 1) * rows * ld + G * group * rows + chunk * rows * (ldx + 4 * panel) + chunk * rows * all);
  float* h = memory;
  float* h_next = h + rows * ld;
  float* c = h_next + rows * ld;  // only with two states
  float* hg = memory + (Cell::states + 1) * rows * ld;
  float* xs = hg + G * group * rows;
  float* xg = xs + chunk * rows * ldx;  // [panel][row of the chunk][panel]
  std::fill_n(memory, (Cell::states + 1) * rows * ld, 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(call.state[0] + (begin + r) * H, H, h + r * ld);
    std::copy_n(call.state[0] + (begin + r) * H, H, h_next + r * ld);
    if (Cell::states == 2) std::copy_n(call.state[1] + (begin + r) * H, H, c + r * ld);
  }
  int64_t in_chunk = 0;
  for (int64_t step = 0; step < call.T; ++step) {
    const int64_t t = call.time(step), M = call.active(t, begin, end);
    if (chunk && step % chunk == 0) {
      in_chunk = std::min(chunk, call.T - step) * rows;
      for (int64_t n = 0; n < in_chunk; ++n) {
        const float* from = call.x + (call.time(step + n / rows) * B + begin + n % rows) * call.I;
        std::copy_n(from, call.I, xs + n * ldx);
      }
      w.columns.multiply(in_chunk, 0, H + panel, xs, ldx, call.I, w.ih, w.bias_ih, xg);
    }
    for (int64_t first = 0; first < H; first += group) {
      if (M) w.columns.multiply(M, first, group, h, ld, H, w.hh, w.bias_hh, hg);
      for (int64_t unit = first; unit < std::min(H, first + group); unit += panel)
        for (int64_t r = 0; r < M; ++r) {
          if (!call.alive(t, begin + r)) continue;
          const int64_t n = t * B + begin + r;
          if (kept && r + 3 < M)  // stores wait for their cache lines in turn: ask for them a few rows ahead
            for (int s = 0; s < Cell::kept; ++s) fetch<1>(kept + ((n + 3) * Cell::kept + s) * H + unit);
          const float* input = chunk ? xg + (step % chunk * rows + r) * panel : call.input_row(t, begin + r, G);
          for (int64_t v = 0, u = unit; v < panel && u < H; v += width, u += width) {
            const int valid = int(std::min<int64_t>(width, H - u));
            vec x[G], part[G], state[2], next[2], keep[5];
            for (int g = 0; g < G; ++g) {
              part[g] = load(hg + ((unit - first) * G / panel + g) * M * panel + r * panel + v);
              x[g] = chunk ? load(input + (unit * G / panel + g) * in_chunk * panel + v) : load(input + g * H + u, valid);
            }
            state[0] = load(h + r * ld + u);
            if (Cell::states == 2) state[1] = load(c + r * ld + u);
            Cell::forward(x, part, state, next, keep);
            store(h_next + r * ld + u, next[0]);
            if (Cell::states == 2) store(c + r * ld + u, next[1]);
            store(outputs + n * H + u, next[0], valid);
            if (kept)
              for (int s = 0; s < Cell::kept; ++s) store(kept + (n * Cell::kept + s) * H + u, keep[s], valid);
          }
        }
    }
    for (int64_t r = 0; r < rows; ++r)
      if (const int64_t n = t * B + begin + r; !call.alive(t, begin + r)) {
        std::fill_n(outputs + n * H, H, 0.0f);
        if (kept) std::fill_n(kept + n * Cell::kept * H, Cell::kept * H, 0.0f);  // so that no run differs from another
      }
    std::swap(h, h_next);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = begin + r, last = call.reverse ? 0 : call.length(row) - 1;
    const float* from = call.length(row) ? outputs + (last * B + row) * H : call.state[0] + row * H;
    std::copy_n(from, H, final[0] + row * H);
    if (Cell::states == 2) std::copy_n(c + r * ld, H, final[1] + row * H);
  }
}

// What the backward pass is given and fills in. (T, B, ·) unless said otherwise.
struct Gradients {
  const float *outputs, *kept;
  const float* d_outputs;    // null: zero
  const float* d_final[2];   // (B, H); null: zero
  float* d_xg;               // (T, B, G·H), zero where padded
  float* d_inner;            // (T, B, H), only for a cell with `inner`
  float* d_state[2];         // (B, H)
};

// w_hh: W_hh (G·H, H) in panels along H. d_bias: sums over this slice of d_xg (G·H), then of d_inner (H).
template <class Cell>
void backward_slice(const Call& call, const float* w_hh, int64_t begin, int64_t end, const Gradients& g, float* d_bias) {
  constexpr int G = Cell::gates;
  const int64_t H = call.H, B = call.B, rows = end - begin;
  const int64_t ld = round_up(H, width) + width, ldg = G * H + width;
  float* memory = scratch(0, Cell::states * rows * ld + rows * ldg + width);
  float* dh = memory;
  float* dc = dh + rows * ld;
  float* d_hg = memory + Cell::states * rows * ld;
  std::fill_n(memory, Cell::states * rows * ld + rows * ldg + width, 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    if (g.d_final[0]) std::copy_n(g.d_final[0] + (begin + r) * H, H, dh + r * ld);
    if (Cell::states == 2 && g.d_final[1]) std::copy_n(g.d_final[1] + (begin + r) * H, H, dc + r * ld);
  }
  for (int64_t step = call.T - 1; step >= 0; --step) {
    const int64_t t = call.time(step), M = call.active(t, begin, end);
    for (int64_t unit = 0; unit < H; unit += panel) {
      vec bias[2][G + 1] = {};
      for (int64_t r = 0; r < M; ++r) {
        if (!call.alive(t, begin + r)) continue;
        const int64_t n = t * B + begin + r;
        if (r + 3 < M) {  // rows lie far apart: ask for them before they are needed
          for (int s = 0; s < Cell::kept; ++s) fetch<0>(g.kept + ((n + 3) * Cell::kept + s) * H + unit);
          for (int s = 0; s < G; ++s) fetch<1>(g.d_xg + ((n + 3) * G + s) * H + unit);
        }
        for (int64_t v = 0, u = unit; v < 2 && u < H; ++v, u += width) {
          const int valid = int(std::min<int64_t>(width, H - u));
          vec keep[5], before[2], d[2], dx[G], dn = {}, ds[2];
          for (int s = 0; s < Cell::kept; ++s) keep[s] = load(g.kept + (n * Cell::kept + s) * H + u, valid);
          const vec h = load(g.outputs + n * H + u, valid);
          if (Cell::inner) before[0] = load(call.h_before(g.outputs, t, begin + r) + u, valid);
          d[0] = load(dh + r * ld + u);
          if (g.d_outputs) d[0] += load(g.d_outputs + n * H + u, valid);
          if (Cell::states == 2) d[1] = load(dc + r * ld + u);
          Cell::backward(keep, h, before, d, dx, &dn, ds);
          for (int gate = 0; gate < G; ++gate) {
            store(g.d_xg + (n * G + gate) * H + u, dx[gate], valid);
            store(d_hg + r * ldg + gate * H + u, Cell::inner && gate == G - 1 ? dn : dx[gate], valid);
            bias[v][gate] += dx[gate];
          }
          if (Cell::inner) {
            store(g.d_inner + n * H + u, dn, valid);
            bias[v][G] += dn;
          }
          store(dh + r * ld + u, ds[0]);
          if (Cell::states == 2) store(dc + r * ld + u, ds[1]);
        }
      }
      for (int64_t v = 0, u = unit; v < 2 && u < H; ++v, u += width)
        for (int gate = 0; gate < G + Cell::inner; ++gate) {
          const int valid = int(std::min<int64_t>(width, H - u));
          store(d_bias + gate * H + u, load(d_bias + gate * H + u, valid) + bias[v][gate], valid);
        }
    }
    for (int64_t r = 0; r < rows; ++r)
      if (!call.alive(t, begin + r)) {  // its gradient goes straight through to the timestep before
        std::fill_n(g.d_xg + (t * B + begin + r) * G * H, G * H, 0.0f);
        if (Cell::inner) std::fill_n(g.d_inner + (t * B + begin + r) * H, H, 0.0f);
        std::fill_n(d_hg + r * ldg, G * H, 0.0f);
      }
    if (M) {
      const int64_t whole = in_full_panels(H);
      panels(2, M, whole / panel, d_hg, ldg, G * H, w_hh, nullptr, dh, ld, panel);
      if (whole < H) panels(1, M, 1, d_hg, ldg, G * H, w_hh + whole * G * H, nullptr, dh + whole, ld, panel);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(dh + r * ld, H, g.d_state[0] + (begin + r) * H);
    if (Cell::states == 2) std::copy_n(dc + r * ld, H, g.d_state[1] + (begin + r) * H);
  }
}

}  // namespace unrolled
