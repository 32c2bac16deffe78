// Bytes of four rows, interleaved per channel: what one dot product of a depthwise convolution takes.
#pragma once

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

// Two vectors of 16 channels each, from 32 bytes of each of four rows: low = channels 0 to 15, high = 16 to 31.
struct Interleaved {
  vi low, high;
};

// A load that happens once, wherever its value is used: GCC 12 otherwise repeats it at each use.
OC_INLINE vi load_once(const void* p) {
  vi r;
  OC_READS(p, sizeof(vi));
  asm("vmovdqu64 %1, %0" : "=v"(r) : "m"(*static_cast<const __m512i_u*>(p)));
  return r;
}

class Interleaver {
 public:
  OC_INLINE Interleaver() {
#if defined(__AVX512VBMI__)
    const vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vi channel = _mm512_mullo_epi32(lane, set(0x01010101));
    low_ = _mm512_add_epi8(channel, set(0x60402000));  // row 0, row 1, and behind them as one table row 2, row 3
    high_ = _mm512_add_epi8(low_, _mm512_set1_epi8(16));
#else
    // Words of the pairs of rows: of channels 0 to 7 and 8 to 15 of one vector half, then those of the other pair.
    low_ = words(0), high_ = words(8);
#endif
  }

  // 32 bytes of each row are read.
  OC_INLINE Interleaved operator()(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) const {
    return rows(whole(a), whole(b), whole(c), whole(d));
  }
  // Only the bytes of the mask are read; zeros in the other channels.
  OC_INLINE Interleaved operator()(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                                   __mmask32 mask) const {
    return rows(part(a, mask), part(b, mask), part(c, mask), part(d, mask));
  }

 private:
#if defined(__AVX512VBMI__)
  OC_INLINE Interleaved rows(__m256i a, __m256i b, __m256i c, __m256i d) const {
    const vi ab = pair(a, b), cd = pair(c, d);
    return {_mm512_permutex2var_epi8(ab, low_, cd), _mm512_permutex2var_epi8(ab, high_, cd)};
  }
#else
  // Unpacked: [a, b of channels 0 to 7 | of 16 to 23 | c, d of 0 to 7 | of 16 to 23], and the other channels.
  OC_INLINE Interleaved rows(__m256i a, __m256i b, __m256i c, __m256i d) const {
    const vi ac = pair(a, c), bd = pair(b, d);
    const vi l = _mm512_unpacklo_epi8(ac, bd), h = _mm512_unpackhi_epi8(ac, bd);
    return {_mm512_permutex2var_epi16(l, low_, h), _mm512_permutex2var_epi16(l, high_, h)};
  }
  static vi words(int from) {
    int16_t index[32];
    for (int c = 0; c < 16; c++)
      for (int j = 0; j < 2; j++) index[2 * c + j] = static_cast<int16_t>(from + c % 8 + 32 * (c / 8) + 16 * j);
    return load(index);
  }
#endif
  static OC_INLINE __m256i whole(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static OC_INLINE __m256i part(const uint8_t* p, __mmask32 mask) { return _mm256_maskz_loadu_epi8(mask, p); }
  static OC_INLINE vi pair(__m256i a, __m256i b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }

  vi low_, high_;
};

}  // namespace
}  // namespace oc::OC_ISA
