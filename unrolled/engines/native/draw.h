// Drawing the next token from scores: the mathematics of unrolled/decoding/sampling.py, which the tests compare it with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "vector.h"

namespace unrolled {

constexpr int dwidth = width / 2;  // doubles in a vector
typedef double dvec __attribute__((vector_size(width * 4), aligned(8), may_alias));
typedef int64_t livec __attribute__((vector_size(width * 4)));
typedef float half_vec __attribute__((vector_size(width * 2), aligned(4), may_alias));

inline dvec load(const double* p) { return *reinterpret_cast<const dvec*>(p); }
inline void store(double* p, dvec v) { *reinterpret_cast<dvec*>(p) = v; }
inline dvec dsplat(double x) { return x - dvec{}; }

// e^x for x up to 0, right to a few units in the last place; 0 where the result would be denormal.
inline dvec exp(dvec x) {
  const livec tiny = x < dsplat(-708.0);
  x = tiny ? dsplat(-708.0) : x;
  const double magic = 6755399441055744.0;  // 1.5 · 2^52: adding it leaves the nearest whole number in the low bits
  const dvec shifted = x * dsplat(1.4426950408889634) + dsplat(magic);
  const dvec n = shifted - dsplat(magic);
  dvec r = x - n * dsplat(6.93147180369123816490e-01);  // ln 2 in two parts (fdlibm's)
  r = r - n * dsplat(1.90821492927058770002e-10);
  dvec p = dsplat(1.0 / 6227020800.0);  // Taylor's series to 1/13!, |r| being at most ln 2 / 2
  p = p * r + dsplat(1.0 / 479001600.0);
  p = p * r + dsplat(1.0 / 39916800.0);
  p = p * r + dsplat(1.0 / 3628800.0);
  p = p * r + dsplat(1.0 / 362880.0);
  p = p * r + dsplat(1.0 / 40320.0);
  p = p * r + dsplat(1.0 / 5040.0);
  p = p * r + dsplat(1.0 / 720.0);
  p = p * r + dsplat(1.0 / 120.0);
  p = p * r + dsplat(1.0 / 24.0);
  p = p * r + dsplat(1.0 / 6.0);
  p = p * r + dsplat(0.5);
  p = p * r + dsplat(1.0);
  p = p * r + dsplat(1.0);
  livec bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const livec scale = (bits << 52) + (int64_t(1023) << 52);
  dvec two_n;
  std::memcpy(&two_n, &scale, sizeof two_n);
  return tiny ? dvec{} : p * two_n;
}

struct Filters {
  double temperature;
  int64_t top_k;
  double top_p, min_p;
};

// Draws tokens below V. Scores come padded with -infinity to a multiple of `width`.
class Draw {
 public:
  Draw(int64_t V, const Filters& how) : V(V), how(how), p(round_up_to_width(V)), order(V) {}

  // The token that u in [0, 1) picks; -1 where the highest score is not a number or not finite.
  int64_t operator()(const float* scores, double u) {
    const float highest = maximum(scores);
    if (!(highest - highest == 0)) return -1;
    if (how.temperature == 0) return std::find(scores, scores + V, highest) - scores;
    exponentiate(scores, highest);
    if (how.top_k && how.top_k < V) keep_top_k();
    if (how.top_p < 1) keep_top_p();
    if (how.min_p > 0) keep_min_p();
    std::partial_sum(p.begin(), p.begin() + V, p.begin());
    return std::upper_bound(p.begin(), p.begin() + V, u * p[V - 1]) - p.begin();
  }

 private:
  static int64_t round_up_to_width(int64_t n) { return (n + width - 1) / width * width; }

  float maximum(const float* scores) const {  // NaN where there is one
    vec high = splat(-std::numeric_limits<float>::infinity());
    ivec missing{};
    for (int64_t i = 0; i < int64_t(p.size()); i += width) {
      const vec x = load(scores + i);
      high = x > high ? x : high;
      missing |= x != x;
    }
    float highest = high[0];
    int any = missing[0];
    for (int i = 1; i < width; ++i) {
      highest = std::max(highest, high[i]);
      any |= missing[i];
    }
    return any ? std::numeric_limits<float>::quiet_NaN() : highest;
  }

  void exponentiate(const float* scores, double highest) {
    const dvec top = dsplat(highest), temperature = dsplat(how.temperature);
    for (int64_t i = 0; i < int64_t(p.size()); i += dwidth) {
      const dvec x = __builtin_convertvector(*reinterpret_cast<const half_vec*>(scores + i), dvec);
      store(p.data() + i, exp((x - top) / temperature));
    }
  }

  // Likelier first, of equally likely tokens the one of lower number: the order of a stable sort.
  auto likelier() const {
    return [this](int32_t a, int32_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; };
  }

  void keep_top_k() {
    std::iota(order.begin(), order.end(), 0);
    std::nth_element(order.begin(), order.begin() + how.top_k, order.end(), likelier());
    for (int64_t i = how.top_k; i < V; ++i) p[order[i]] = 0;
  }

  void keep_top_p() {
    std::iota(order.begin(), order.end(), 0);
    const double sum = std::accumulate(p.begin(), p.begin() + V, 0.0);
    double reached = 0;
    int64_t kept = 0, sorted = 0;
    for (; kept < V; ++kept) {
      if (kept == sorted) {  // sort no more than is asked for
        sorted = std::min<int64_t>(V, 2 * sorted + 16);
        std::partial_sort(order.begin() + kept, order.begin() + sorted, order.end(), likelier());
      }
      const double ranked = p[order[kept]] / sum;
      reached += ranked;
      if (reached - ranked >= how.top_p) break;  // what lies before this token reaches p already
    }
    for (int64_t i = kept; i < V; ++i) p[order[i]] = 0;
  }

  void keep_min_p() {
    const double least = how.min_p * *std::max_element(p.begin(), p.begin() + V);
    for (int64_t i = 0; i < V; ++i)
      if (p[i] < least) p[i] = 0;
  }

  const int64_t V;
  const Filters how;
  std::vector<double> p;
  std::vector<int32_t> order;
};

}  // namespace unrolled
