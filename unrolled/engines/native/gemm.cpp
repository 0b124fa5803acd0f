#include "gemm.h"

namespace unrolled {
namespace {

// C[MR rows][NP panels of NR vectors] = start + A[MR × K] · B. A(i, k) is a[i·lda + k], or with `Columns` a[k·lda + i].
// Panel p of B begins at b + p·b_next, of C at c + p·c_next. `bias`: what every row of C starts from; null: C itself.
template <int MR, int NR, int NP, bool Columns>
inline void tile(const float* a, int64_t lda, int64_t K, const float* b, int64_t b_next, const float* bias, float* c,
                 int64_t ldc, int64_t c_next) {
  vec sum[MR][NP][NR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 2
      for (int n = 0; n < NR; ++n)
        sum[i][p][n] = load(bias ? bias + (p * NR + n) * width : c + i * ldc + p * c_next + n * width);
  for (int64_t k = 0; k < K; ++k) {
    vec row[NP][NR];
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 2
      for (int n = 0; n < NR; ++n) row[p][n] = load(b + p * b_next + (k * NR + n) * width);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      vec x = splat(a[Columns ? k * lda + i : i * lda + k]);
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p)
#pragma GCC unroll 2
        for (int n = 0; n < NR; ++n) sum[i][p][n] += x * row[p][n];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 2
      for (int n = 0; n < NR; ++n) store(c + i * ldc + p * c_next + n * width, sum[i][p][n]);
}

// A tile of M rows, M from 1 to MR.
template <int NR, int NP, bool Columns, int MR = most_rows(NR * NP)>
inline void tile_of(int64_t M, const float* a, int64_t lda, int64_t K, const float* b, int64_t b_next, const float* bias,
                    float* c, int64_t ldc, int64_t c_next) {
  if (MR == 1 || M == MR) return tile<MR, NR, NP, Columns>(a, lda, K, b, b_next, bias, c, ldc, c_next);
  if constexpr (MR > 1) tile_of<NR, NP, Columns, MR - 1>(M, a, lda, K, b, b_next, bias, c, ldc, c_next);
}

// Any number of rows, in tiles of nearly equal height.
template <int NR, int NP>
inline void rows(int64_t M, const float* a, int64_t lda, int64_t K, const float* b, int64_t b_next, const float* bias,
                 float* c, int64_t ldc, int64_t c_next) {
  constexpr int most = most_rows(NR * NP);
  for (int64_t left = (M + most - 1) / most, i = 0; left > 0; --left) {
    const int64_t height = (M - i + left - 1) / left;
    tile_of<NR, NP, false>(height, a + i * lda, lda, K, b, b_next, bias, c + i * ldc, ldc, c_next);
    i += height;
  }
}

// With few rows, several panels at once keep the multipliers busy.
template <int NR>
void several(int64_t M, int64_t count, const float* a, int64_t lda, int64_t K, const float* b, const float* bias,
                   float* c, int64_t ldc, int64_t c_next) {
  const int64_t columns = NR * width, b_next = K * columns;
  int64_t p = 0;
  auto from = [&] { return bias ? bias + p * columns : nullptr; };
  if (M <= std::min(2, most_rows(4 * NR)))
    for (; p + 4 <= count; p += 4) rows<NR, 4>(M, a, lda, K, b + p * b_next, b_next, from(), c + p * c_next, ldc, c_next);
  if (M <= std::min(4, most_rows(2 * NR)))
    for (; p + 2 <= count; p += 2) rows<NR, 2>(M, a, lda, K, b + p * b_next, b_next, from(), c + p * c_next, ldc, c_next);
  for (; p < count; ++p) rows<NR, 1>(M, a, lda, K, b + p * b_next, b_next, from(), c + p * c_next, ldc, c_next);
}

// A block of C = or += A · B: A packed in tiles of `tall` rows (K × tall each), one panel of B, N valid columns of it.
template <int NR>
inline void block(int64_t M, int64_t N, int64_t K, const float* a, const float* b, bool first, float* c, int64_t ldc) {
  static constexpr float zeros[NR * width] = {};
  const bool partial = N < NR * width;  // C ends before the panel does: go by way of `edge`
  float edge[tall * panel];
  for (int64_t i = 0; i < M; i += tall, c += tall * ldc) {
    const int64_t height = std::min<int64_t>(tall, M - i);
    if (partial && !first)
      for (int64_t r = 0; r < height; ++r) std::copy_n(c + r * ldc, N, edge + r * panel);
    tile_of<NR, 1, true, tall>(height, a + i * K, tall, K, b, 0, first ? zeros : nullptr, partial ? edge : c,
                               partial ? panel : ldc, 0);
    if (partial)
      for (int64_t r = 0; r < height; ++r) std::copy_n(edge + r * panel, N, c + r * ldc);
  }
}

constexpr int64_t block_k = 192, block_m = 16 * tall;  // so that a panel of B and a tile of A stay in the first cache

}  // namespace

void pack_rows(int64_t begin, int64_t end, int64_t K, int64_t N, const Row& row, float* packed) {
  for (int64_t k = begin; k < end; ++k) {
    const float* from = row(k);
    for (int64_t j = 0; j < N; j += panel) {
      const int64_t columns = std::min<int64_t>(panel, round_up(N - j, width));
      float* to = packed + j * K + k * columns;
      store(to, load(from + j, int(std::min<int64_t>(width, N - j))));
      if (columns > width) store(to + width, load(from + j + width, int(std::min<int64_t>(width, N - j - width))));
    }
  }
}

void panels(int vectors, int64_t M, int64_t count, const float* a, int64_t lda, int64_t K, const float* b,
            const float* bias, float* c, int64_t ldc, int64_t c_next) {
  if (vectors == 2) several<2>(M, count, a, lda, K, b, bias, c, ldc, c_next);
  else several<1>(M, count, a, lda, K, b, bias, c, ldc, c_next);
}

int64_t product_space(int64_t N) { return block_k * (round_up(N, width) + block_m); }

void product(int64_t begin, int64_t end, int64_t N, int64_t K, const PackA& a, const Row& b, float* c, int64_t ldc,
             float* space) {
  if (K == 0)
    for (int64_t i = begin; i < end; ++i) std::fill_n(c + i * ldc, N, 0.0f);
  float* packed_b = space;
  float* packed_a = space + block_k * round_up(N, width);
  for (int64_t k = 0; k < K; k += block_k) {
    const int64_t depth = std::min(block_k, K - k);
    pack_rows(0, depth, depth, N, [&](int64_t row) { return b(k + row); }, packed_b);
    for (int64_t i = begin; i < end; i += block_m) {
      const int64_t M = std::min(block_m, end - i);
      a(i, k, M, depth, packed_a);
      for (int64_t j = 0; j < N; j += panel) {
        const int64_t columns = std::min<int64_t>(panel, N - j);
        if (columns > width) block<2>(M, columns, depth, packed_a, packed_b + j * depth, k == 0, c + i * ldc + j, ldc);
        else block<1>(M, columns, depth, packed_a, packed_b + j * depth, k == 0, c + i * ldc + j, ldc);
      }
    }
  }
}

PackA straight(Row row) {
  return [row](int64_t i, int64_t k, int64_t M, int64_t depth, float* to) {
    for (int64_t r = 0; r < M; r += tall) {
      const int64_t height = std::min<int64_t>(tall, M - r);
      turn(height, depth, [&](int64_t n) { return row(i + r + n) + k; }, to + r * depth, tall);
    }
  };
}

PackA transposed(Row row) {
  return [row](int64_t i, int64_t k, int64_t M, int64_t depth, float* to) {
    const float* from = row(k) + i;
    const int64_t next = row(1) - row(0), whole = M / tall * tall;
    for (int64_t n = 0; n < depth; ++n, from += next) {  // along the rows in memory, since they are far apart
      for (int64_t r = 0; r < whole; r += tall)  // a copy of known size is a few moves
        std::memcpy(to + r * depth + n * tall, from + r, tall * sizeof(float));
      for (int64_t r = whole; r < M; ++r) to[whole * depth + n * tall + r - whole] = from[r];
    }
  };
}

}  // namespace unrolled
