// The operators unrolled::generate_pack and unrolled::generate: checks, packing, and how many threads pay.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "generate.h"
#include "threads.h"

namespace {

using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;
using namespace unrolled;

const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
float* out(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

void check(bool right, const char* what) { STD_TORCH_CHECK(right, "unrolled::generate: ", what); }

template <class Cell>
void pack(const Product& product, const Tensor& weight, const Tensor& bias) {
  check(weight.is_contiguous() && bias.is_contiguous() && weight.dim() == 2 && weight.size(1) == product.K &&
            weight.size(0) == Cell::gates * product.units && bias.numel() == weight.size(0),
        "a weight or bias is not of the model's shape");
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
  const int64_t H = weights[0].size(1), V = weights[count - 2].size(0);
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
  const int64_t L = h.size(0), B = h.size(1), H = h.size(2), V = scores.size(1), N = u.size(0);
  check(packed.is_contiguous() && table.is_contiguous() && h.is_contiguous() && scores.is_contiguous() &&
            u.is_contiguous() && (!c || c->is_contiguous()),
        "a tensor is not contiguous");
  check(L > 0 && scores.size(0) == B && u.size(1) == B && table.size(0) >= V, "tensors do not fit each other");
  Tensor written = torch::stable::new_empty(u, {N, B}, torch::headeronly::ScalarType::Long);
  auto* tokens = static_cast<int64_t*>(written.mutable_data_ptr());
  std::fill_n(tokens, N * B, -1);
  const bool known = with_cell(cell, [&](auto which) {
    using Cell = decltype(which);
    const Model model(Cell::gates, H, V, L, out(packed));
    check(packed.numel() == model.floats && table.size(1) == Cell::gates * H && (Cell::states == 2) == c.has_value() &&
              (!c || c->numel() == h.numel()),
          "the tensors are not of such a model");
    float* cells = c ? out(*c) : nullptr;
    Generation generation(which, model, floats(table), B, {temperature, top_k, top_p, min_p});
    generation.read(out(h), cells, out(scores));
    generation.run(N, static_cast<const double*>(u.const_data_ptr()), tokens,
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
