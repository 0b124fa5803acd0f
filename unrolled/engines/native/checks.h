// What an operator is given, held against what it expects, before any memory is touched.
//
// What follows the checks trusts every size and type, so whatever the caller hands over is checked. The device is not: the
// dispatcher comes to these operators only where all tensors are on the CPU, since any other device goes first.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>

namespace unrolled {

constexpr int64_t any = -1;  // a size that is free

template <class List>
std::string in_words(const List& sizes) {
  std::string words;
  for (int64_t size : sizes) words += (words.empty() ? "" : ", ") + (size == any ? "any" : std::to_string(size));
  return "(" + words + ")";
}

// Checks of one operator, whose name the messages begin with.
class Checks {
 public:
  using ScalarType = torch::headeronly::ScalarType;
  using Tensor = torch::stable::Tensor;
  using Sizes = std::initializer_list<int64_t>;

  explicit constexpr Checks(const char* name) : name(name) {}

  void operator()(bool right, const char* what) const { STD_TORCH_CHECK(right, name, ": ", what); }

  void operator()(const char* which, const Tensor& t, Sizes sizes, ScalarType type = ScalarType::Float) const {
    const char* holds = type == ScalarType::Float ? "float32" : type == ScalarType::Double ? "float64" : "int64";
    STD_TORCH_CHECK(t.scalar_type() == type, name, ": ", which, " does not hold ", holds);
    const auto given = t.sizes();
    const bool right = std::equal(given.begin(), given.end(), sizes.begin(), sizes.end(),
                                  [](int64_t a, int64_t b) { return a == b || b == any; });
    STD_TORCH_CHECK(right, name, ": ", which, " has sizes ", in_words(given), ", not ", in_words(sizes));
  }
  void operator()(const char* which, const std::optional<Tensor>& t, Sizes sizes,
                  ScalarType type = ScalarType::Float) const {
    if (t) (*this)(which, *t, sizes, type);
  }

  // For memory that is read or written in place.
  void contiguous(const char* which, const Tensor& t, Sizes sizes, ScalarType type = ScalarType::Float) const {
    (*this)(which, t, sizes, type);
    STD_TORCH_CHECK(t.is_contiguous(), name, ": ", which, " is not contiguous");
  }

 private:
  const char* const name;
};

}  // namespace unrolled
