// Vectors of 32-bit lanes under one set of names, for every instruction set.
//
// A kernel file includes this, is compiled once per instruction set, and puts everything into namespace oc::OC_ISA.
// It must emit no weak symbols: templates of the standard library that are instantiated here would be compiled for
// AVX-512 and merged by the linker with those of the rest of the program (tests/ops/test_library.py looks).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/sanitizer.hpp"

#if defined(OC_AVX512) || defined(OC_AVX2)
#include <immintrin.h>
#endif

#define OC_INLINE __attribute__((always_inline)) inline
#define OC_LAMBDA __attribute__((always_inline))

namespace oc::OC_ISA {
namespace {

// f(integral constant 0), ..., f(integral constant N - 1), unrolled: accumulators stay in registers.
template <int I>
struct Index {
  constexpr operator int() const { return I; }
};
template <int N, int I = 0, class F>
OC_INLINE void unroll(F&& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    unroll<N, I + 1>(f);
  }
}

template <class T>
OC_INLINE T least(T a, T b) { return a < b ? a : b; }
template <class T>
OC_INLINE T most(T a, T b) { return a > b ? a : b; }
OC_INLINE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

#if defined(OC_AVX512)

using vi = __m512i;
using vf = __m512;
constexpr int kLanes = 16;

OC_INLINE vi zero() { return _mm512_setzero_si512(); }
OC_INLINE vi set(int32_t x) { return _mm512_set1_epi32(x); }
OC_INLINE vf setf(float x) { return _mm512_set1_ps(x); }
OC_INLINE vi load(const void* p) { return _mm512_loadu_si512(p); }
OC_INLINE vf loadf(const float* p) { return _mm512_loadu_ps(p); }
OC_INLINE void store(void* p, vi x) { _mm512_storeu_si512(p, x); }
OC_INLINE void storef(float* p, vf x) { _mm512_storeu_ps(p, x); }
OC_INLINE __mmask16 first(int count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1); }
// The first `count` lanes; zeros beyond.
OC_INLINE vf loadf(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
OC_INLINE void storef(float* p, vf x, int count) { _mm512_mask_storeu_ps(p, first(count), x); }
// Four bytes at p in every lane. In assembly: GCC 12 otherwise folds it into each use and spills accumulators.
OC_INLINE vi broadcast4(const void* p) {
  vi r;
  OC_READS(p, 4);
  asm("vpbroadcastd %1, %0" : "=v"(r) : "m"(*static_cast<const int32_t*>(p)));
  return r;
}
// acc + sum of 4 products of unsigned bytes by signed bytes, in each lane. Exact. In assembly for the same reason.
OC_INLINE vi dot(vi acc, vi u8, vi s8) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8));
  return acc;
}
// acc + sum of 2 products of signed 16-bit integers, in each lane, modulo 2^32.
OC_INLINE vi dot_words(vi acc, vi a, vi b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
  return acc;
}
OC_INLINE vi add(vi a, vi b) { return _mm512_add_epi32(a, b); }
OC_INLINE vi sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
OC_INLINE vi mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
OC_INLINE vi maxi(vi a, vi b) { return _mm512_max_epi32(a, b); }
OC_INLINE vf to_float(vi x) { return _mm512_cvtepi32_ps(x); }
OC_INLINE vi to_int(vf x) { return _mm512_cvtps_epi32(x); }  // round to nearest even; out of range: INT_MIN
OC_INLINE vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
OC_INLINE vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
OC_INLINE vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
OC_INLINE vf div(vf a, vf b) { return _mm512_div_ps(a, b); }
OC_INLINE vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
OC_INLINE vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
OC_INLINE vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
OC_INLINE vf round(vf x) { return _mm512_roundscale_ps(x, 0); }
OC_INLINE vf sqrt(vf x) { return _mm512_sqrt_ps(x); }
OC_INLINE vf scale2(vf x, vf power) { return _mm512_scalef_ps(x, power); }  // x * 2^power, power whole
OC_INLINE float sum(vf x) { return _mm512_reduce_add_ps(x); }
OC_INLINE int32_t sum(vi x) { return _mm512_reduce_add_epi32(x); }
OC_INLINE float maximum(vf x) { return _mm512_reduce_max_ps(x); }
OC_INLINE float minimum(vf x) { return _mm512_reduce_min_ps(x); }
// kLanes bytes as 32-bit integers.
OC_INLINE vi load_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
OC_INLINE vi load_s8(const int8_t* p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
OC_INLINE vi load_u8(const uint8_t* p, int count) { return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(count), p)); }
OC_INLINE vi load_s8(const int8_t* p, int count) { return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(count), p)); }
// Saturate to [0, 255] and store kLanes bytes, or the first `count`.
OC_INLINE void store_u8(uint8_t* p, vi x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(_mm512_max_epi32(x, zero())));
}
OC_INLINE void store_u8(uint8_t* p, vi x, int count) {
  _mm_mask_storeu_epi8(p, first(count), _mm512_cvtusepi32_epi8(_mm512_max_epi32(x, zero())));
}
// Saturate four vectors to [0, 255]: 64 bytes in order.
OC_INLINE vi pack4(const vi* x) {
  const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(
      order, _mm512_packus_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3])));
}

// A table of 256 bytes that is applied to 64 bytes at a time.
struct Table {
  vi part[4];
  explicit OC_INLINE Table(const uint8_t* t) : part{load(t), load(t + 64), load(t + 128), load(t + 192)} {}

  OC_INLINE vi operator()(vi x) const {
#if defined(__AVX512VBMI__)
    vi low = _mm512_permutex2var_epi8(part[0], x, part[1]), high = _mm512_permutex2var_epi8(part[2], x, part[3]);
    return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(x), high);
#else
    // 128 words: bytes of even and odd index share a word, which a shift by 8 tells apart.
    auto look = [&](vi word) {
      vi low = _mm512_permutex2var_epi16(part[0], word, part[1]);
      vi high = _mm512_permutex2var_epi16(part[2], word, part[3]);
      return _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(word, _mm512_set1_epi16(64)), high);
    };
    const vi one = _mm512_set1_epi16(1);
    vi even = look(_mm512_srli_epi16(_mm512_slli_epi16(x, 8), 9)), odd = look(_mm512_srli_epi16(x, 9));
    even = _mm512_srlv_epi16(even, _mm512_slli_epi16(_mm512_and_si512(x, one), 3));
    odd = _mm512_srlv_epi16(odd, _mm512_slli_epi16(_mm512_and_si512(_mm512_srli_epi16(x, 8), one), 3));
    return _mm512_mask_mov_epi8(even, 0xAAAAAAAAAAAAAAAAull, _mm512_slli_epi16(odd, 8));
#endif
  }
};

#else  // 8 lanes: AVX2, or whatever the compiler makes of its own vectors

constexpr int kLanes = 8;

#if defined(OC_AVX2)

using vi = __m256i;
using vf = __m256;

OC_INLINE vi zero() { return _mm256_setzero_si256(); }
OC_INLINE vi set(int32_t x) { return _mm256_set1_epi32(x); }
OC_INLINE vf setf(float x) { return _mm256_set1_ps(x); }
OC_INLINE vi load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
OC_INLINE vf loadf(const float* p) { return _mm256_loadu_ps(p); }
OC_INLINE void store(void* p, vi x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
OC_INLINE void storef(float* p, vf x) { _mm256_storeu_ps(p, x); }
OC_INLINE vi broadcast4(const void* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return set(x);
}
// vpmaddubsw would saturate: even and odd bytes are widened to 16 bits instead, which is exact.
OC_INLINE vi dot(vi acc, vi u8, vi s8) {
  vi even = _mm256_madd_epi16(_mm256_and_si256(u8, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8));
  vi odd = _mm256_madd_epi16(_mm256_srli_epi16(u8, 8), _mm256_srai_epi16(s8, 8));
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
OC_INLINE vi dot_words(vi acc, vi a, vi b) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
OC_INLINE vi add(vi a, vi b) { return _mm256_add_epi32(a, b); }
OC_INLINE vi sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
OC_INLINE vi mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
OC_INLINE vi maxi(vi a, vi b) { return _mm256_max_epi32(a, b); }
OC_INLINE vf to_float(vi x) { return _mm256_cvtepi32_ps(x); }
OC_INLINE vi to_int(vf x) { return _mm256_cvtps_epi32(x); }
OC_INLINE vf add(vf a, vf b) { return _mm256_add_ps(a, b); }
OC_INLINE vf sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
OC_INLINE vf mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
OC_INLINE vf div(vf a, vf b) { return _mm256_div_ps(a, b); }
OC_INLINE vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
OC_INLINE vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
OC_INLINE vf min(vf a, vf b) { return _mm256_min_ps(a, b); }
OC_INLINE vf round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OC_INLINE vf sqrt(vf x) { return _mm256_sqrt_ps(x); }
OC_INLINE vf scale2(vf x, vf power) {  // for powers of normal numbers: [-126, 127]
  return mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(to_int(power), set(127)), 23)));
}
OC_INLINE vi load_u8(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
OC_INLINE vi load_s8(const int8_t* p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
OC_INLINE void store_u8(uint8_t* p, vi x) {
  vi words = _mm256_packs_epi32(x, x);
  vi bytes = _mm256_packus_epi16(words, words);
  int32_t low = _mm256_extract_epi32(bytes, 0), high = _mm256_extract_epi32(bytes, 4);
  std::memcpy(p, &low, 4);
  std::memcpy(p + 4, &high, 4);
}

#else

typedef int32_t vi __attribute__((vector_size(32)));
typedef float vf __attribute__((vector_size(32)));

OC_INLINE vi set(int32_t x) { return x - vi{}; }
OC_INLINE vi zero() { return vi{}; }
OC_INLINE vf setf(float x) { return vf{x, x, x, x, x, x, x, x}; }
template <class V>
OC_INLINE V read(const void* p) {
  V x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
OC_INLINE vi load(const void* p) { return read<vi>(p); }
OC_INLINE vf loadf(const float* p) { return read<vf>(p); }
OC_INLINE void store(void* p, vi x) { std::memcpy(p, &x, sizeof x); }
OC_INLINE void storef(float* p, vf x) { std::memcpy(p, &x, sizeof x); }
OC_INLINE vi broadcast4(const void* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return set(x);
}
OC_INLINE vi dot(vi acc, vi u8, vi s8) {
  unroll<4>([&](auto j) {
    vi a = (u8 >> (8 * j)) & 255, b = (s8 << (24 - 8 * j)) >> 24;
    acc += a * b;
  });
  return acc;
}
OC_INLINE vi dot_words(vi acc, vi a, vi b) {  // unsigned, for sums wrap around
  typedef uint32_t wrapping __attribute__((vector_size(32)));
  const wrapping low = (wrapping)(((a << 16) >> 16) * ((b << 16) >> 16)), high = (wrapping)((a >> 16) * (b >> 16));
  return (vi)((wrapping)acc + low + high);
}
OC_INLINE vi add(vi a, vi b) { return a + b; }
OC_INLINE vi sub(vi a, vi b) { return a - b; }
OC_INLINE vi mul(vi a, vi b) { return a * b; }
OC_INLINE vi maxi(vi a, vi b) { return a > b ? a : b; }
OC_INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
OC_INLINE vf round(vf x) {
  vf r;
  for (int i = 0; i < kLanes; i++) r[i] = __builtin_nearbyintf(x[i]);
  return r;
}
OC_INLINE vi to_int(vf x) {  // out of range and not-a-number: INT_MIN, as the processor's own conversion
  vi r;
  for (int i = 0; i < kLanes; i++)
    r[i] = x[i] >= -2147483648.f && x[i] < 2147483648.f ? static_cast<int32_t>(__builtin_nearbyintf(x[i])) : INT32_MIN;
  return r;
}
OC_INLINE vf add(vf a, vf b) { return a + b; }
OC_INLINE vf sub(vf a, vf b) { return a - b; }
OC_INLINE vf mul(vf a, vf b) { return a * b; }
OC_INLINE vf div(vf a, vf b) { return a / b; }
OC_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
OC_INLINE vf max(vf a, vf b) { return a > b ? a : b; }  // the second where one is not a number, as in hardware
OC_INLINE vf min(vf a, vf b) { return a < b ? a : b; }
OC_INLINE vf sqrt(vf x) {
  vf r;
  for (int i = 0; i < kLanes; i++) r[i] = __builtin_sqrtf(x[i]);
  return r;
}
OC_INLINE vf scale2(vf x, vf power) {
  vi bits = (to_int(power) + 127) << 23;
  return x * read<vf>(&bits);
}
template <class T>
OC_INLINE vi widen(const T* p) {
  vi r;
  for (int i = 0; i < kLanes; i++) r[i] = p[i];
  return r;
}
OC_INLINE vi load_u8(const uint8_t* p) { return widen(p); }
OC_INLINE vi load_s8(const int8_t* p) { return widen(p); }
OC_INLINE void store_u8(uint8_t* p, vi x) {
  for (int i = 0; i < kLanes; i++) p[i] = static_cast<uint8_t>(x[i] < 0 ? 0 : x[i] > 255 ? 255 : x[i]);
}

#endif

OC_INLINE float sum(vf x) {
  float s = 0;
  for (int i = 0; i < kLanes; i++) s += x[i];
  return s;
}
OC_INLINE int32_t sum(vi x) {
  int32_t lanes[kLanes], s = 0;
  store(lanes, x);
  for (int i = 0; i < kLanes; i++) s += lanes[i];
  return s;
}
OC_INLINE float maximum(vf x) {
  float s = x[0];
  for (int i = 1; i < kLanes; i++) s = most(s, static_cast<float>(x[i]));
  return s;
}
OC_INLINE float minimum(vf x) {
  float s = x[0];
  for (int i = 1; i < kLanes; i++) s = least(s, static_cast<float>(x[i]));
  return s;
}
OC_INLINE vf loadf(const float* p, int count) {
  float lanes[kLanes] = {};
  std::memcpy(lanes, p, sizeof(float) * least(count, kLanes));
  return loadf(lanes);
}
OC_INLINE void storef(float* p, vf x, int count) {
  float lanes[kLanes];
  storef(lanes, x);
  std::memcpy(p, lanes, sizeof(float) * least(count, kLanes));
}
OC_INLINE vi load_u8(const uint8_t* p, int count) {
  uint8_t lanes[kLanes] = {};
  std::memcpy(lanes, p, least(count, kLanes));
  return load_u8(lanes);
}
OC_INLINE vi load_s8(const int8_t* p, int count) {
  int8_t lanes[kLanes] = {};
  std::memcpy(lanes, p, least(count, kLanes));
  return load_s8(lanes);
}
OC_INLINE void store_u8(uint8_t* p, vi x, int count) {
  uint8_t lanes[kLanes];
  store_u8(lanes, x);
  std::memcpy(p, lanes, least(count, kLanes));
}

#endif

// 2^x, with a relative error of 2e-7 on [-126, 127], to which x is clamped: 2^whole * 2^fraction, the latter by a
// polynomial of degree 5 fitted at Chebyshev nodes of [-1/2, 1/2].
OC_INLINE vf exp2(vf x) {
  x = min(max(x, setf(-126.f)), setf(127.f));
  vf n = round(x), f = sub(x, n);
  vf p = setf(0.0013267f);
  p = fma(p, f, setf(0.00967546f));
  p = fma(p, f, setf(0.05550743f));
  p = fma(p, f, setf(0.24022122f));
  p = fma(p, f, setf(0.69314695f));
  p = fma(p, f, setf(1.00000007f));
  return scale2(p, n);
}
OC_INLINE vf exp(vf x) { return exp2(mul(x, setf(1.4426950408889634f))); }

OC_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace
}  // namespace oc::OC_ISA
