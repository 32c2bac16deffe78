// Halves (IEEE 754 binary16) as bits, from and to floats. Portable: loops without branches, which compilers turn into
// vectors.
#pragma once

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

OC_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

OC_INLINE float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Exact.
OC_INLINE float half_to_float(uint16_t half) {
  constexpr uint32_t kRebias = 112u << 23, kLeastNormal = 113u << 23;
  const uint32_t size = (half & 0x7fffu) << 13, exponent = size & (31u << 23), sign = (half & 0x8000u) << 16;
  const uint32_t normal = size + kRebias + (exponent == 31u << 23 ? kRebias : 0);  // infinity and not-a-number: 255
  const uint32_t tiny = bits_of(float_of(size + kLeastNormal) - float_of(kLeastNormal));  // no denormal on the way
  return float_of((exponent == 0 ? tiny : normal) | sign);
}

// To nearest, ties to even; infinity beyond the range.
OC_INLINE uint16_t float_to_half(float x) {
  constexpr uint32_t kInfinity = 255u << 23, kBeyond = 143u << 23, kLeastNormal = 113u << 23;
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  const uint32_t normal = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
  const uint32_t tiny = bits_of(float_of(size < kLeastNormal ? size : 0) + 0.5f) - bits_of(0.5f);
  const uint32_t special = size > kInfinity ? 0x7e00u : 0x7c00u;
  return static_cast<uint16_t>(sign | (size >= kBeyond ? special : size < kLeastNormal ? tiny : normal));
}

inline void to_floats(const uint16_t* halves, float* floats, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i++) floats[i] = half_to_float(halves[i]);
}

inline void to_halves(const float* floats, uint16_t* halves, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i++) halves[i] = float_to_half(floats[i]);
}

}  // namespace
}  // namespace oc::OC_ISA
