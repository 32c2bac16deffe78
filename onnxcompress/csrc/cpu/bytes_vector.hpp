// Vectors of bytes, and the way between them and the 32-bit lanes of simd.hpp. One vector of bytes is four of lanes.
#pragma once

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

constexpr int kBytes = 4 * kLanes;

#if defined(OC_AVX512)

using vb = __m512i;

OC_INLINE __mmask64 first64(int count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }
OC_INLINE vb loadb(const uint8_t* p) { return load(p); }
OC_INLINE void storeb(uint8_t* p, vb x) { store(p, x); }
// The first `count` bytes; zeros beyond.
OC_INLINE vb loadb(const uint8_t* p, int count) { return _mm512_maskz_loadu_epi8(first64(count), p); }
OC_INLINE void storeb(uint8_t* p, vb x, int count) { _mm512_mask_storeu_epi8(p, first64(count), x); }
OC_INLINE vb maxb(vb a, vb b) { return _mm512_max_epu8(a, b); }

// Lanes + zero_point, saturated to [0, 255], in order.
OC_INLINE vb pack(const vi* x, vi zero_point) {
  const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const vi zero16 = _mm512_packs_epi32(zero_point, zero_point);
  const vi low = _mm512_adds_epi16(_mm512_packs_epi32(x[0], x[1]), zero16);
  const vi high = _mm512_adds_epi16(_mm512_packs_epi32(x[2], x[3]), zero16);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}

// Bytes as integers, in order.
OC_INLINE void widen(vb bytes, vi* x) {
  x[0] = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(bytes));
  x[1] = _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(bytes, 1));
  x[2] = _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(bytes, 2));
  x[3] = _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(bytes, 3));
}

using ByteTable = Table;

#else

typedef uint8_t vb __attribute__((vector_size(32)));

OC_INLINE vb loadb(const uint8_t* p) {
  vb x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
OC_INLINE void storeb(uint8_t* p, vb x) { std::memcpy(p, &x, sizeof x); }
OC_INLINE vb loadb(const uint8_t* p, int count) {
  vb x = {};
  std::memcpy(&x, p, least(count, kBytes));
  return x;
}
OC_INLINE void storeb(uint8_t* p, vb x, int count) { std::memcpy(p, &x, least(count, kBytes)); }
OC_INLINE vb maxb(vb a, vb b) { return a > b ? a : b; }

OC_INLINE vb pack(const vi* x, vi zero_point) {
#if defined(OC_AVX2)
  const vi zero16 = _mm256_packs_epi32(zero_point, zero_point);
  const vi low = _mm256_adds_epi16(_mm256_packs_epi32(x[0], x[1]), zero16);
  const vi high = _mm256_adds_epi16(_mm256_packs_epi32(x[2], x[3]), zero16);
  const vi order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return reinterpret_cast<vb>(_mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
#else
  uint8_t bytes[kBytes];
  unroll<4>([&](auto v) OC_LAMBDA { store_u8(bytes + v * kLanes, add(maxi(x[v], set(-65536)), zero_point)); });
  return loadb(bytes);
#endif
}

OC_INLINE void widen(vb bytes, vi* x) {
  uint8_t b[kBytes];
  storeb(b, bytes);
  unroll<4>([&](auto v) OC_LAMBDA { x[v] = load_u8(b + v * kLanes); });
}

struct ByteTable {
  const uint8_t* table;
  explicit OC_INLINE ByteTable(const uint8_t* t) : table(t) {}
  OC_INLINE vb operator()(vb x) const {
    for (int i = 0; i < kBytes; i++) x[i] = table[x[i]];
    return x;
  }
};

#endif

// The bytes at p as integers, in order.
OC_INLINE void widen(const uint8_t* p, vi* x) {
  unroll<4>([&](auto v) OC_LAMBDA { x[v] = load_u8(p + v * kLanes); });
}

// The nearest whole number; not-a-number and what is below every integer become one that saturates to 0.
OC_INLINE vi nearest(vf x) { return to_int(min(setf(65536.f), x)); }

// Calls fn(true or false as a constant): whether a table is given.
template <class F>
OC_INLINE void with_table(const uint8_t* table, F&& fn) {
  static const uint8_t none[256] = {};
  if (table) fn(Index<1>{}, ByteTable(table));
  else fn(Index<0>{}, ByteTable(none));
}

}  // namespace
}  // namespace oc::OC_ISA
