// Transposes of bytes.
#pragma once

#include "cpu/bytes_vector.hpp"

namespace oc::OC_ISA {
namespace {

constexpr int kTile = 16;

#if defined(OC_AVX512)

// y[c][r] = x[r][c] for at most 16 rows and columns. Rows of x four apart share a vector, so that two rounds of
// unpacking bring the same four columns of all rows together.
OC_INLINE void transpose_tile(const uint8_t* x, ptrdiff_t x_stride, int rows, int columns, uint8_t* y,
                              ptrdiff_t y_stride) {
  const __mmask16 in = first(columns), out = first(rows);
  auto row = [&](int r) OC_LAMBDA { return _mm_maskz_loadu_epi8(in, x + least(r, rows - 1) * x_stride); };
  vi four[4];
  unroll<4>([&](auto i) OC_LAMBDA {
    four[i] = _mm512_castsi128_si512(row(i));
    four[i] = _mm512_inserti32x4(four[i], row(i + 4), 1);
    four[i] = _mm512_inserti32x4(four[i], row(i + 8), 2);
    four[i] = _mm512_inserti32x4(four[i], row(i + 12), 3);
  });
  const vi low[2] = {_mm512_unpacklo_epi32(four[0], four[1]), _mm512_unpacklo_epi32(four[2], four[3])};
  const vi high[2] = {_mm512_unpackhi_epi32(four[0], four[1]), _mm512_unpackhi_epi32(four[2], four[3])};
  const vi quads[4] = {_mm512_unpacklo_epi64(low[0], low[1]), _mm512_unpackhi_epi64(low[0], low[1]),
                       _mm512_unpacklo_epi64(high[0], high[1]), _mm512_unpackhi_epi64(high[0], high[1])};
  const vi bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  unroll<4>([&](auto q) OC_LAMBDA {
    const vi four_rows = _mm512_permutexvar_epi32(order, _mm512_shuffle_epi8(quads[q], bytes));
    unroll<4>([&](auto j) OC_LAMBDA {
      const int c = 4 * q + j;
      if (c < columns) _mm_mask_storeu_epi8(y + c * y_stride, out, _mm512_extracti32x4_epi32(four_rows, j));
    });
  });
}

#else

OC_INLINE void transpose_tile(const uint8_t* x, ptrdiff_t x_stride, int rows, int columns, uint8_t* y,
                              ptrdiff_t y_stride) {
#if defined(OC_AVX2)
  if (rows == kTile && columns == kTile) {
    // Four times: byte i of the first half beside byte i of the second.
    __m128i a[kTile], b[kTile];
    unroll<kTile>([&](auto r) OC_LAMBDA {
      a[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + r * x_stride));
    });
    unroll<4>([&](auto) OC_LAMBDA {
      unroll<kTile / 2>([&](auto r) OC_LAMBDA {
        b[2 * r] = _mm_unpacklo_epi8(a[r], a[r + kTile / 2]);
        b[2 * r + 1] = _mm_unpackhi_epi8(a[r], a[r + kTile / 2]);
      });
      unroll<kTile>([&](auto r) OC_LAMBDA { a[r] = b[r]; });
    });
    unroll<kTile>([&](auto c) OC_LAMBDA { _mm_storeu_si128(reinterpret_cast<__m128i*>(y + c * y_stride), a[c]); });
    return;
  }
#endif
  for (int c = 0; c < columns; c++)
    for (int r = 0; r < rows; r++) y[c * y_stride + r] = x[r * x_stride + c];
}

#endif

// y[c][r] = x[r][c], any number of them.
OC_INLINE void transpose(const uint8_t* x, ptrdiff_t x_stride, int rows, int columns, uint8_t* y, ptrdiff_t y_stride) {
  for (int r = 0; r < rows; r += kTile)
    for (int c = 0; c < columns; c += kTile)
      transpose_tile(x + r * x_stride + c, x_stride, least(kTile, rows - r), least(kTile, columns - c),
                     y + c * y_stride + r, y_stride);
}

// The same with few columns, where tiles would be mostly empty.
template <int kColumns>
OC_INLINE void split(const uint8_t* x, int rows, uint8_t* y, ptrdiff_t y_stride) {
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < kColumns; c++) y[c * y_stride + r] = x[r * kColumns + c];
}
template <int kColumns>
OC_INLINE void join(const uint8_t* x, ptrdiff_t x_stride, int rows, uint8_t* y) {
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < kColumns; c++) y[r * kColumns + c] = x[c * x_stride + r];
}

}  // namespace
}  // namespace oc::OC_ISA
