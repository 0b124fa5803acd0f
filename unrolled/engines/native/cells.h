// The elementwise part of a timestep, forward and backward, a vector of hidden units at a time.
//
// The mathematics is that of unrolled/cells/{rnn,lstm,gru}.py, which the tests compare it with. For each cell:
//   gates    blocks of H rows in W_ih and W_hh, in torch.nn's order
//   kept     blocks of H floats a timestep that the backward needs beside the outputs
//   states   tensors of the state; state[0] is the output h
//   inner    true where W_hh h enters in another way than W_ih x, in the last gate (the GRU's candidate)
// forward:  xg, hg (input and recurrent part of each gate), state -> next, keep
// backward: keep, the new h, the state before, d (gradient of the new state) -> dx (of xg), dn (of the last gate's hg where
//           inner), ds (of the state before, directly, not through hg)
#pragma once

#include "vector.h"

namespace unrolled {

template <bool relu>
struct Rnn {
  static constexpr int gates = 1, kept = 0, states = 1;
  static constexpr bool inner = false;

  static void forward(const vec* xg, const vec* hg, const vec*, vec* next, vec*) {
    const vec a = xg[0] + hg[0];
    next[0] = relu ? (a < splat(0) ? splat(0) : a) : tanh(a);
  }

  static void backward(const vec*, vec h, const vec*, const vec* d, vec* dx, vec*, vec* ds) {
    if (relu) dx[0] = h <= splat(0) ? splat(0) : d[0];  // where h is NaN it passes, as in PyTorch
    else dx[0] = d[0] * (splat(1) - h * h);
    ds[0] = splat(0);
  }
};

struct Lstm {
  static constexpr int gates = 4, kept = 5, states = 2;
  static constexpr bool inner = false;

  static void forward(const vec* xg, const vec* hg, const vec* state, vec* next, vec* keep) {
    const vec i = sigmoid(xg[0] + hg[0]), f = sigmoid(xg[1] + hg[1]);
    const vec g = tanh(xg[2] + hg[2]), o = sigmoid(xg[3] + hg[3]);
    const vec c = f * state[1] + i * g;
    next[0] = o * tanh(c);
    next[1] = c;
    keep[0] = i, keep[1] = f, keep[2] = g, keep[3] = o, keep[4] = state[1];
  }

  static void backward(const vec* keep, vec, const vec*, const vec* d, vec* dx, vec*, vec* ds) {
    const vec i = keep[0], f = keep[1], g = keep[2], o = keep[3], before = keep[4], one = splat(1);
    const vec tanh_c = tanh(f * before + i * g);  // computing it again is as fast as reading it
    const vec dc = d[1] + d[0] * o * (one - tanh_c * tanh_c);
    dx[0] = dc * g * i * (one - i);
    dx[1] = dc * before * f * (one - f);
    dx[2] = dc * i * (one - g * g);
    dx[3] = d[0] * tanh_c * o * (one - o);
    ds[0] = splat(0);
    ds[1] = dc * f;
  }
};

struct Gru {
  static constexpr int gates = 3, kept = 4, states = 1;
  static constexpr bool inner = true;

  static void forward(const vec* xg, const vec* hg, const vec* state, vec* next, vec* keep) {
    const vec r = sigmoid(xg[0] + hg[0]), z = sigmoid(xg[1] + hg[1]);
    const vec n = tanh(xg[2] + r * hg[2]);
    next[0] = n + z * (state[0] - n);
    keep[0] = r, keep[1] = z, keep[2] = n, keep[3] = hg[2];
  }

  static void backward(const vec* keep, vec, const vec* state, const vec* d, vec* dx, vec* dn, vec* ds) {
    const vec r = keep[0], z = keep[1], n = keep[2], one = splat(1);
    const vec da = (d[0] - d[0] * z) * (one - n * n);
    dx[0] = da * keep[3] * r * (one - r);
    dx[1] = d[0] * (state[0] - n) * z * (one - z);
    dx[2] = da;
    *dn = da * r;
    ds[0] = d[0] * z;
  }
};

// f(Cell{}) for the cell by its number in unrolled/engines/fused.py; false where there is none.
template <class F>
bool with_cell(int64_t cell, const F& f) {
  switch (cell) {
    case 0: f(Rnn<false>{}); return true;
    case 1: f(Rnn<true>{}); return true;
    case 2: f(Lstm{}); return true;
    case 3: f(Gru{}); return true;
  }
  return false;
}

}  // namespace unrolled
