// half and half2 of cuda_fp16.h, as far as our kernels use them: every operation rounds its exact result to half.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "cuda/emulation_builtins.hpp"

struct half {
  uint16_t bits;
};
struct alignas(4) half2 {
  half x, y;
};
using __half = half;
using __half2 = half2;

// The conversion of IEEE 754, through integers: exact for all values, infinities and subnormals among them.
inline float __half2float(half h) {
  const unsigned sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, mantissa = h.bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) return std::copysign(static_cast<float>(mantissa) * 0x1p-24f, std::bit_cast<float>(sign));
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

// To nearest, ties to even; beyond the range: infinity.
inline half double_to_half(double x) {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const double size = std::fabs(x);
  if (std::isnan(x)) return {0x7fff};
  if (size >= 65520) return {static_cast<uint16_t>(sign | 0x7c00)};
  const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
  // In steps of the last place; a carry out of the mantissa raises the exponent by itself.
  const auto steps = static_cast<unsigned>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  const unsigned bits = steps < 1024 ? steps : static_cast<unsigned>(exponent + 14) * 1024 + steps;
  return {static_cast<uint16_t>(sign | bits)};
}

inline half __float2half(float x) { return double_to_half(static_cast<double>(x)); }
inline half __float2half_rn(float x) { return __float2half(x); }
inline half __int2half_rn(int x) { return double_to_half(x); }
inline half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(half h) { return h.bits; }

inline half __hadd(half a, half b) { return double_to_half(double{__half2float(a)} + __half2float(b)); }
inline half __hsub(half a, half b) { return double_to_half(double{__half2float(a)} - __half2float(b)); }
inline half __hmul(half a, half b) { return double_to_half(double{__half2float(a)} * __half2float(b)); }
inline half __hfma(half a, half b, half c) {
  return double_to_half(double{__half2float(a)} * __half2float(b) + __half2float(c));
}

inline half2 __halves2half2(half x, half y) { return {x, y}; }
inline half2 __half2half2(half x) { return {x, x}; }
inline half __low2half(half2 h) { return h.x; }
inline half __high2half(half2 h) { return h.y; }
inline float __low2float(half2 h) { return __half2float(h.x); }
inline float __high2float(half2 h) { return __half2float(h.y); }
inline float2 __half22float2(half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
inline half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
inline half2 __float22half2_rn(float2 x) { return {__float2half(x.x), __float2half(x.y)}; }
inline half2 __float2half2_rn(float x) { return __half2half2(__float2half(x)); }
inline half2 __hadd2(half2 a, half2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
inline half2 __hsub2(half2 a, half2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }
inline half2 __hmul2(half2 a, half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
inline half2 __hfma2(half2 a, half2 b, half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
