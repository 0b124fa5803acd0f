// Vectors of floats as wide as the machine's registers, and the functions that gates are made of.
//
// GCC's and Clang's vector extensions: the same source becomes AVX-512, AVX2, SSE, NEON or plain scalar code, whatever the
// target has. Nothing here assumes finite numbers: NaN goes in, NaN comes out.
#pragma once

#include <cstdint>
#include <cstring>

namespace unrolled {

#if defined(__AVX512F__)
constexpr int width = 16;      // floats in a vector
constexpr int registers = 32;  // vectors that the processor holds
#elif defined(__AVX__)
constexpr int width = 8;
constexpr int registers = 16;
#elif defined(__aarch64__)
constexpr int width = 4;
constexpr int registers = 32;
#else
constexpr int width = 4;
constexpr int registers = 16;
#endif

typedef float vec __attribute__((vector_size(width * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(width * 4)));

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
inline vec splat(float x) { return x - vec{}; }

// The first n of a vector, where memory ends before the vector does.
inline vec load(const float* p, int n) {
  if (n >= width) return load(p);
  vec v{};
  std::memcpy(&v, p, sizeof(float) * n);
  return v;
}
inline void store(float* p, vec v, int n) {
  if (n >= width) store(p, v);
  else std::memcpy(p, &v, sizeof(float) * n);
}

// Four rows of four floats at `from`, as columns at `to`.
inline void transpose4(const float* from, int64_t next, float* to, int64_t to_next) {
  typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
  auto row = [&](int64_t i) { return *reinterpret_cast<const four*>(from + i * next); };
  const four a = row(0), b = row(1), c = row(2), d = row(3);
#if defined(__clang__)
#define UNROLLED_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
  typedef int32_t places __attribute__((vector_size(16)));
#define UNROLLED_SHUFFLE(x, y, i, j, k, l) __builtin_shuffle(x, y, places{i, j, k, l})
#endif
  const four ab_low = UNROLLED_SHUFFLE(a, b, 0, 4, 1, 5), ab_high = UNROLLED_SHUFFLE(a, b, 2, 6, 3, 7);
  const four cd_low = UNROLLED_SHUFFLE(c, d, 0, 4, 1, 5), cd_high = UNROLLED_SHUFFLE(c, d, 2, 6, 3, 7);
  auto column = [&](int64_t i) -> four& { return *reinterpret_cast<four*>(to + i * to_next); };
  column(0) = UNROLLED_SHUFFLE(ab_low, cd_low, 0, 1, 4, 5);
  column(1) = UNROLLED_SHUFFLE(ab_low, cd_low, 2, 3, 6, 7);
  column(2) = UNROLLED_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
  column(3) = UNROLLED_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
#undef UNROLLED_SHUFFLE
}

inline vec clamp(vec x, float low, float high) {  // a comparison with NaN is false, so NaN stays
  x = x > splat(high) ? splat(high) : x;
  return x < splat(low) ? splat(low) : x;
}

// e^x to about one unit in the last place: x = n ln 2 + r, and a polynomial in r (the coefficients of Cephes' expf).
inline vec exp(vec x) {
  x = clamp(x, -87.0f, 89.0f);  // above 88.4 the scale below is infinite, so that a sigmoid reaches 0
  const float magic = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest whole number in the low bits
  vec shifted = x * splat(1.44269504088896341f) + splat(magic);
  vec n = shifted - splat(magic);
  vec r = x - n * splat(0.693359375f);
  r = r - n * splat(-2.12194440e-4f);
  vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * (r * r) + r + splat(1.0f);
  ivec bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  ivec scale = (bits << 23) + (127 << 23);
  vec two_n;
  std::memcpy(&two_n, &scale, sizeof scale);
  return p * two_n;
}

inline vec sigmoid(vec x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

// A rational function, x (1 + s p(s)) / q(s) with s = x², so that near 0 it is x itself. The coefficients are a minimax
// fit of the relative error on (0, 9], 4e-8 before rounding; beyond 9.1 it exceeds 1, and the last clamp makes 1 of it.
inline vec tanh(vec x) {
  x = clamp(x, -10.0f, 10.0f);
  vec s = x * x;
  vec p = splat(1.34198288e-08f);
  p = p * s + splat(2.06612676e-05f);
  p = p * s + splat(3.49899614e-03f);
  p = p * s + splat(1.33839801e-01f);
  vec q = splat(7.80473215e-07f);
  q = q * s + splat(3.29103874e-04f);
  q = q * s + splat(2.58902051e-02f);
  q = q * s + splat(4.6717301e-01f);
  q = q * s + splat(1.0f);
  return clamp((x * s * p + x) / q, -1.0f, 1.0f);
}

}  // namespace unrolled
