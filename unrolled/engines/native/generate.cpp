// The operators unrolled::generate_pack and unrolled::generate: checks, packing, and how many threads pay.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "checks.h"
#include "generate.h"
#include "threads.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;
using namespace unrolled;

const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
float* out(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

constexpr Checks check("unrolled::generate");
constexpr int64_t most_threads = 1024;

template <class Cell>
void pack(const Product& product, const Tensor& weight, const Tensor& bias) {
  check.contiguous("a weight", weight, {Cell::gates * product.units, product.K});
  check.contiguous("a bias", bias, {Cell::gates * product.units});
  const Columns<Cell> columns{product.units};
  columns.pack(floats(bias), 1, 0, product.units, product.bias);
  parallel((product.units + panel - 1) / panel, double(product.all()) * product.K, [&](int64_t i) {
    const int64_t end = std::min(product.units, (i + 1) * panel);
    columns.pack(floats(weight), product.K, i * panel, end, product.weights);
  });
}

// weights: W_hh and bias of the first layer, then W_ih, bias, W_hh and bias of each further layer, then the output layer's.
Tensor generate_pack(std::vector<Tensor> weights, int64_t cell) {
  const int64_t count = weights.size(), layers = count / 4;
  check(count >= 4 && count % 4 == 0, "there are not four tensors a layer");
  check("the first weight", weights[0], {any, any}), check("the output's weight", weights[count - 2], {any, any});
  const int64_t H = weights[0].size(1), V = weights[count - 2].size(0);
  check(H > 0 && V > 0, "a weight is empty");
  Tensor packed;
  const bool known = with_cell(cell, [&](auto which) {
    using Cell = decltype(which);
    packed = torch::stable::new_empty(weights[0], {Model(Cell::gates, H, V, layers, nullptr).floats});
    const Model model(Cell::gates, H, V, layers, out(packed));
    int64_t next = 0;
    for (int64_t layer = 0; layer < layers; ++layer, next += 2) {
      if (layer) pack<Cell>(model.layers[layer].ih, weights[next], weights[next + 1]), next += 2;
      pack<Cell>(model.layers[layer].hh, weights[next], weights[next + 1]);
    }
    pack<Rnn<false>>(model.output, weights[next], weights[next + 1]);
    // what pads the tokens to whole vectors is none of them
    std::fill(model.output.bias + V, model.output.bias + model.output.all(), -std::numeric_limits<float>::infinity());
  });
  check(known, "there is no such cell");
  return packed;
}

// Threads pay where each has so much to do in a step that the meetings, about a microsecond, matter little, and where the
// call is longer than it takes to start them. No more of them than shorten the longest part of the units.
int workers(const Model& model, int64_t rows, int64_t steps) {
  const int64_t work = model.floats * rows, parts = (model.H + panel - 1) / panel;
  if (work * steps < 2000000 || Team::crowded_lately()) return 1;
  const int64_t paying = std::clamp<int64_t>(work / 80000, 1, std::min<int64_t>(parts, unrolled::threads()));
  const int64_t longest = (parts + paying - 1) / paying;
  return int((parts + longest - 1) / longest);
}

// packed: from generate_pack; table: (tokens, G·H), input parts of the first layer; h, c: (L, B, H) and scores: (B, V), all
// three changed; u: (N, B) uniform numbers; threads: 0 for as many as pay. Returns tokens (N, B).
Tensor generate(Tensor packed, Tensor table, Tensor h, Maybe c, Tensor scores, Tensor u, int64_t cell, double temperature,
                int64_t top_k, double top_p, double min_p, int64_t threads) {
  check.contiguous("h", h, {any, any, any});
  const int64_t L = h.size(0), B = h.size(1), H = h.size(2);
  check.contiguous("scores", scores, {B, any}), check.contiguous("u", u, {any, B}, ScalarType::Double);
  check.contiguous("packed", packed, {any}), check.contiguous("table", table, {any, any});
  if (c) check.contiguous("c", *c, {L, B, H});
  const int64_t V = scores.size(1), N = u.size(0);
  check(L > 0 && H > 0 && V > 0, "the state or the scores are empty");
  check(table.size(0) >= V, "the table has fewer rows than there are tokens to write");
  check(0 <= threads && threads <= most_threads, "threads is not between 0 and 1024");
  // a draw outside of these could pick a token that the table has no row for
  check(temperature >= 0 && temperature <= std::numeric_limits<double>::max() && top_k >= 0 && top_p > 0 && top_p <= 1 &&
            min_p >= 0 && min_p <= 1,
        "temperature, top_k, top_p or min_p is out of its range");
  const auto* uniform = static_cast<const double*>(u.const_data_ptr());
  check(std::all_of(uniform, uniform + N * B, [](double x) { return x >= 0 && x < 1; }), "u is not in [0, 1)");
  Tensor written = torch::stable::new_empty(u, {N, B}, ScalarType::Long);
  auto* tokens = static_cast<int64_t*>(written.mutable_data_ptr());
  std::fill_n(tokens, N * B, -1);
  const bool known = with_cell(cell, [&](auto which) {
    using Cell = decltype(which);
    const Model model(Cell::gates, H, V, L, out(packed));
    check("table", table, {any, Cell::gates * H});
    check(packed.numel() == model.floats && (Cell::states == 2) == c.has_value(), "packed or c is not of such a model");
    const auto padding = [](float bias) { return bias == -std::numeric_limits<float>::infinity(); };
    check(std::all_of(model.output.bias + V, model.output.bias + model.output.all(), padding),
          "packed is of a model with more tokens than there are scores");
    float* cells = c ? out(*c) : nullptr;
    Generation generation(which, model, floats(table), B, {temperature, top_k, top_p, min_p});
    generation.read(out(h), cells, out(scores));
    generation.run(N, uniform, tokens,
                   threads ? int(threads) : workers(model, B, N));
    generation.write(out(h), cells, out(scores));
  });
  check(known, "there is no such cell");
  return written;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(unrolled, m) {
  m.def("generate_pack(Tensor[] weights, int cell) -> Tensor");
  m.def(
      "generate(Tensor packed, Tensor table, Tensor(a!) h, Tensor(b!)? c, Tensor(c!) scores, Tensor u, int cell, "
      "float temperature, int top_k, float top_p, float min_p, int threads) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(unrolled, CPU, m) {
  m.impl("generate_pack", TORCH_BOX(&generate_pack));
  m.impl("generate", TORCH_BOX(&generate));
}
