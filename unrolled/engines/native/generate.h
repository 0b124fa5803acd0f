// Writing a text: a language model steps, a token is drawn, and the model steps on it.
//
// Weights are packed once a generation. Workers (threads) own the same units of every layer throughout, so that each keeps
// its own weights in its own cache, and meet at a barrier where one needs what the others have computed.
#pragma once

#include <atomic>
#include <limits>
#include <utility>
#include <vector>

#include "cells.h"
#include "draw.h"
#include "unroll.h"
#include "workers.h"

namespace unrolled {

// A weight matrix in panels, with its bias. `gates` blocks of `units` rows lie as Columns says, and so does a row of results.
struct Product {
  int64_t gates, units, K;
  float *bias = nullptr, *weights = nullptr;

  int64_t all() const { return gates * round_up(units, width); }
  void place(float*& space) {
    bias = space, weights = bias + all();
    space = weights + all() * K;
  }

  // The panels of units [from, to) of results (M, ldc) = bias + a · weights; from and to are multiples of `panel`.
  void multiply(int64_t from, int64_t to, int64_t M, const float* a, int64_t lda, float* c, int64_t ldc) const {
    const int64_t full = in_full_panels(units), whole = std::min(to, full);
    auto some = [&](int vectors, int64_t count, int64_t first) {
      panels(vectors, M, count, a, lda, K, weights + first * K, bias + first, c + first, ldc, vectors * width);
    };
    if (from < whole) some(2, (whole - from) / panel * gates, from * gates);
    if (full < to && full < units) some(1, gates, full * gates);
  }
};

// A language model's packed weights, which lie in `space`.
struct Model {
  struct Layer {
    Product ih, hh;  // the first layer has no ih: its input parts are the rows of a table
  };
  int64_t gates, H, V;
  std::vector<Layer> layers;
  Product output;
  int64_t floats;

  Model(int64_t gates, int64_t H, int64_t V, int64_t count, float* space)
      : gates(gates), H(H), V(V), layers(count, {{gates, H, H}, {gates, H, H}}), output{1, V, H} {
    float* const start = space;
    for (auto& layer : layers) {
      if (&layer != &layers.front()) layer.ih.place(space);
      layer.hh.place(space);
    }
    output.place(space);
    floats = space - start;
  }
};

// A model that writes B rows.
class Generation {
 public:
  template <class Cell>
  Generation(Cell, const Model& model, const float* table, int64_t B, const Filters& how)
      : model(model), table(table), B(B), how(how), ld(round_up(model.H, width)), ldv(model.output.all()),
        ldg(model.gates * ld), layers(model.layers.size()), advance(&Generation::advance_layer<Cell>), tokens(B) {
    const int64_t states = layers * B * ld, parts = B * ldg, all = 2 * states + Cell::states / 2 * states + 2 * parts;
    float* space = scratch(0, all + B * ldv);
    std::fill_n(space, all, 0.0f);
    std::fill_n(space + all, B * ldv, -std::numeric_limits<float>::infinity());  // the padding is no token
    auto take = [&](int64_t floats) { return std::exchange(space, space + floats); };
    h = take(states), h_next = take(states), c = Cell::states == 2 ? take(states) : nullptr;
    xg = take(parts), hg = take(parts), scores = space;
  }

  // The state (L, B, H) and the scores (B, V) of the next token.
  void read(const float* their_h, const float* their_c, const float* their_scores) {
    for (int64_t r = 0; r < layers * B; ++r) {
      std::copy_n(their_h + r * model.H, model.H, h + r * ld);
      if (c) std::copy_n(their_c + r * model.H, model.H, c + r * ld);
    }
    for (int64_t r = 0; r < B; ++r) std::copy_n(their_scores + r * model.V, model.V, scores + r * ldv);
  }
  void write(float* their_h, float* their_c, float* their_scores) const {
    for (int64_t r = 0; r < layers * B; ++r) {
      std::copy_n(h + r * ld, model.H, their_h + r * model.H);
      if (c) std::copy_n(c + r * ld, model.H, their_c + r * model.H);
    }
    for (int64_t r = 0; r < B; ++r) std::copy_n(scores + r * ldv, model.V, their_scores + r * model.V);
  }

  // N tokens for each row; u, written: (N, B). Where scores are no numbers, what is written ends with a token of -1.
  void run(int64_t N, const double* u, int64_t* written, int workers) {
    std::atomic<bool> failed{false};
    Team::run(workers, [&](Team::Worker worker) {
      Draw draw(model.V, how);
      float *before = h, *after = h_next;
      for (int64_t step = 0; step < N && worker.goes_on(); ++step, std::swap(before, after)) {
        const auto panels_of = [&](int64_t columns) {
          const auto [from, to] = worker.share((columns + panel - 1) / panel);
          return std::pair{from * panel, to * panel};
        };
        const auto rows = worker.share(B), units = panels_of(model.H), outputs = panels_of(model.V);
        for (int64_t r = rows.first; r < rows.second; ++r) {
          tokens[r] = written[step * B + r] = draw(scores + r * ldv, u[step * B + r]);
          if (tokens[r] < 0) failed = true;
        }
        worker.meet();
        if (failed) return;
        for (int64_t layer = 0; layer < layers; ++layer) {
          (this->*advance)(layer, units.first, units.second, before, after);
          worker.meet();
        }
        model.output.multiply(outputs.first, outputs.second, B, after + (layers - 1) * B * ld, ld, scores, ldv);
        worker.meet();
      }
    });
    if (N & 1) std::swap(h, h_next);
  }

 private:
  // The units [from, to) of a layer, one timestep on.
  template <class Cell>
  void advance_layer(int64_t layer, int64_t from, int64_t to, const float* before, float* after) {
    constexpr int G = Cell::gates;
    const int64_t at = layer * B * ld;
    const Columns<Cell> columns{model.H};
    model.layers[layer].hh.multiply(from, to, B, before + at, ld, hg, ldg);
    if (layer) model.layers[layer].ih.multiply(from, to, B, after + at - B * ld, ld, xg, ldg);
    for (int64_t r = 0; r < B; ++r) {
      const float* row = table + tokens[r] * G * model.H;
      const int64_t state_at = at + r * ld;
      for (int64_t block = from; block < std::min(to, model.H); block += panel)
        for (int64_t v = 0, u = block; v < panel && u < model.H; v += width, u += width) {
          const int valid = int(std::min<int64_t>(width, model.H - u));
          vec x[G], part[G], state[2], next[2], keep[5];
          for (int g = 0; g < G; ++g) {
            const int64_t place = r * ldg + columns.at(block, g) + v;
            x[g] = layer ? load(xg + place) : load(row + g * model.H + u, valid);
            part[g] = load(hg + place);
          }
          state[0] = load(before + state_at + u);
          if (Cell::states == 2) state[1] = load(c + state_at + u);
          Cell::forward(x, part, state, next, keep);
          store(after + state_at + u, next[0]);
          if (Cell::states == 2) store(c + state_at + u, next[1]);
        }
    }
  }

  const Model& model;
  const float* table;  // (tokens, G·H): the first layer's input part of every token
  const int64_t B;
  const Filters how;
  const int64_t ld, ldv, ldg;  // floats between rows of a state, of scores, of input and recurrent parts
  const int64_t layers;
  void (Generation::*const advance)(int64_t, int64_t, int64_t, const float*, float*);
  float *h, *h_next, *c, *xg, *hg, *scores;
  std::vector<int64_t> tokens;
};

}  // namespace unrolled
