// Matrix products over packed operands.
//
// Packed is: panels of columns, in each panel row k after row k-1, so that the inner loop reads one stream and keeps a tile
// of results in registers (Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication"). A recurrent
// weight is packed once a call and used at every timestep. All matrices are row-major.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "vector.h"

namespace unrolled {

constexpr int panel = 2 * width;  // columns of a full panel; the last one may have `width`

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How many of n columns lie in full panels; what is left, at most `width`, gets a panel of one vector.
inline int64_t in_full_panels(int64_t n) { return n / panel * panel + (n % panel > width ? panel : 0); }

// Row n of a matrix in memory. Rows follow each other at one distance.
using Row = std::function<const float*(int64_t)>;

// to[k · next + n] = row(n)[k] for n below N and k below K: rows become columns.
template <class Rows>
inline void turn(int64_t N, int64_t K, Rows row, float* to, int64_t next) {
  for (int64_t k = 0; k < K; k += 16)  // a cache line of each row, so that what is written stays near
    for (int64_t n = 0; n < N; n += 4) {
      const int64_t last = std::min(K, k + 16);
      int64_t i = k;
      if (n + 4 <= N)
        for (; i + 4 <= last; i += 4) transpose4(row(n) + i, row(n + 1) - row(n), to + i * next + n, next);
      for (; i < last; ++i)
        for (int64_t m = n; m < std::min(N, n + 4); ++m) to[i * next + m] = row(m)[i];
    }
}

// Rows [begin, end) of B[K × N] into panels along N, the last one padded with zeros to a multiple of `width`: all together
// K · round_up(N, width) floats.
void pack_rows(int64_t begin, int64_t end, int64_t K, int64_t N, const Row& row, float* packed);

// C[M × count panels of `vectors` (1 or 2) vectors] = bias + A · B, without bias C + A · B; the panels are neighbours in B.
// Panel p of C begins at c + p·c_next; row i of A at a + i·lda.
void panels(int vectors, int64_t M, int64_t count, const float* a, int64_t lda, int64_t K, const float* b,
            const float* bias, float* c, int64_t ldc, int64_t c_next);

// Rows [begin, end) of C[· × N] = A[· × K] · B. `a` packs rows i to i + M of columns k to
// k + depth, in tiles of `tall` rows one after the other, each [depth][tall]; `b(k)` points at row k of B, which need not
// lie at one distance. space: product_space(N) floats.
using PackA = std::function<void(int64_t i, int64_t k, int64_t M, int64_t depth, float* to)>;
void product(int64_t begin, int64_t end, int64_t N, int64_t K, const PackA& a, const Row& b, float* c, int64_t ldc,
             float* space);
int64_t product_space(int64_t N);

// A as it lies in memory, and A whose transpose lies in memory.
PackA straight(Row row);
PackA transposed(Row row);

// A product is cut into parts at multiples of so many rows.
constexpr int most_rows(int vectors) { return std::clamp((registers - 2 - vectors) / vectors, 1, 12); }
constexpr int tall = most_rows(2);

}  // namespace unrolled
