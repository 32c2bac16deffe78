// Sums of the channels of an image, exact.
#pragma once

#include "cpu/bytes_vector.hpp"

namespace oc::OC_ISA {
namespace {

constexpr int kSumWidth = 1024;  // most columns that several pixels together have
constexpr int kSumRows = 256;    // as many bytes as 16 bits can add up

#if defined(OC_AVX512)

// sums[i] += x[i] + x[i + stride] + ... over at most kSumRows rows, for NV vectors; a single one has `count` bytes.
template <int NV, bool kTable>
OC_INLINE void sum_block(const uint8_t* x, ptrdiff_t stride, int rows, int count, const ByteTable& look,
                         int32_t* sums) {
  vi even[NV], odd[NV];
  const vi low = _mm512_set1_epi16(255);
  unroll<NV>([&](auto v) OC_LAMBDA { even[v] = odd[v] = zero(); });
  for (int r = 0; r < rows; r++, x += stride)
    unroll<NV>([&](auto v) OC_LAMBDA {
      vb bytes = NV > 1 ? loadb(x + v * kBytes) : loadb(x, count);
      if (kTable) bytes = look(bytes);
      even[v] = _mm512_add_epi16(even[v], _mm512_and_si512(bytes, low));
      odd[v] = _mm512_add_epi16(odd[v], _mm512_srli_epi16(bytes, 8));
    });
  vi first_half, second_half = set(0x00100010);  // words 0, 32, 1, 33, ... and 16, 48, 17, 49, ...
  first_half = _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), zero());
  first_half = _mm512_or_si512(first_half, _mm512_slli_epi32(_mm512_add_epi32(first_half, set(32)), 16));
  second_half = _mm512_add_epi16(first_half, second_half);
  unroll<NV>([&](auto v) OC_LAMBDA {
    const vi words[2] = {_mm512_permutex2var_epi16(even[v], first_half, odd[v]),
                         _mm512_permutex2var_epi16(even[v], second_half, odd[v])};
    unroll<4>([&](auto part) OC_LAMBDA {
      const __m256i half = _mm512_extracti64x4_epi64(words[part / 2], part % 2);
      const vi sum = _mm512_cvtepu16_epi32(half);
      int32_t* to = sums + v * kBytes + part * kLanes;
      const __mmask16 mask = first(NV > 1 ? kLanes : most(0, count - part * kLanes));
      _mm512_mask_storeu_epi32(to, mask, add(sum, _mm512_maskz_loadu_epi32(mask, to)));
    });
  });
}

template <bool kTable>
OC_INLINE void sum_columns(const uint8_t* x, size_t rows, int width, const ByteTable& look, int32_t* sums) {
  for (size_t r = 0; r < rows; r += kSumRows) {
    const int many = static_cast<int>(least<size_t>(kSumRows, rows - r));
    const uint8_t* from = x + r * width;
    int c = 0;
    for (; c + 4 * kBytes <= width; c += 4 * kBytes)
      sum_block<4, kTable>(from + c, width, many, kBytes, look, sums + c);
    for (; c < width; c += kBytes)
      sum_block<1, kTable>(from + c, width, many, least(width - c, kBytes), look, sums + c);
  }
}

#else

template <bool kTable>
OC_INLINE void sum_columns(const uint8_t* x, size_t rows, int width, const ByteTable& look, int32_t* sums) {
  for (size_t r = 0; r < rows; r++, x += width)
    for (int c = 0; c < width; c++) sums[c] += kTable ? look.table[x[c]] : x[c];
}

#endif

// Pixels that together fill whole vectors, where their channels alone do not.
OC_INLINE int pixels_at_once(int channels) {
  int together = kBytes;
  while (together > 1 && channels % 2 == 0) together /= 2, channels /= 2;
  return together;
}

template <bool kTable>
OC_INLINE void channel_sums_of(const uint8_t* x, size_t pixels, int channels, const ByteTable& look, int32_t* sums) {
  int together = pixels_at_once(channels);
  if (together * channels > kSumWidth) together = channels < kSumWidth / 4 ? kSumWidth / 4 / channels : 1;
  const size_t rows = pixels / together;
  if (together > 1 && rows > 1) {
    int32_t wide[kSumWidth] = {};
    sum_columns<kTable>(x, rows, together * channels, look, wide);
    for (int p = 0; p < together; p++)
      for (int c = 0; c < channels; c++) sums[c] += wide[p * channels + c];
    x += rows * together * channels, pixels -= rows * together;
  }
  sum_columns<kTable>(x, pixels, channels, look, sums);
}

void channel_sums(const uint8_t* x, size_t pixels, int channels, const uint8_t* table, int32_t* sums) {
  with_table(table, [&](auto has_table, const ByteTable& look) OC_LAMBDA {
    channel_sums_of<has_table>(x, pixels, channels, look, sums);
  });
}

}  // namespace
}  // namespace oc::OC_ISA
