// From packed codes of 4 and 8 bits to vectors of floats.
#pragma once

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

#if defined(OC_AVX512)
constexpr int kVectors = 4;  // of a panel
// The kAt-th code of eight, less 8, by a table of the sixteen values.
struct Nibbles {
  vf table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  template <int kAt>
  OC_INLINE vf get(vi words) const {
    return _mm512_permutexvar_ps(kAt ? _mm512_srli_epi32(words, 4 * kAt) : words, table);
  }
};
#elif defined(OC_AVX2)
constexpr int kVectors = 2;
struct Nibbles {
  template <int kAt>
  OC_INLINE vf get(vi words) const {
    return to_float(_mm256_srai_epi32(_mm256_slli_epi32(words, 28 - 4 * kAt), 28));
  }
};
#else
constexpr int kVectors = 2;
struct Nibbles {
  template <int kAt>
  OC_INLINE vf get(vi words) const {
    typedef uint32_t vu __attribute__((vector_size(32)));
    return to_float((vi)((vu)words << (28 - 4 * kAt)) >> 28);
  }
};
#endif

constexpr int kPanel = kVectors * kLanes, kOctet = 8;

// Bytes of a panel's codes of eight k.
template <int kBits>
constexpr ptrdiff_t kOctetBytes = kPanel * kBits;

// f(k, vector, code less the middle one), for eight k and all vectors of a panel.
template <int kBits, class F>
OC_INLINE void for_codes(const uint8_t* codes, const Nibbles& nibbles, F&& f) {
  if constexpr (kBits == 4) {
    vi words[kVectors];
    unroll<kVectors>([&](auto v) OC_LAMBDA { words[v] = load(codes + v * kLanes * 4); });
    unroll<kOctet>([&](auto j) OC_LAMBDA {
      unroll<kVectors>([&](auto v) OC_LAMBDA { f(j, v, nibbles.template get<j>(words[v])); });
    });
  } else {
    unroll<kOctet>([&](auto j) OC_LAMBDA {
      unroll<kVectors>([&](auto v) OC_LAMBDA {
        f(j, v, to_float(load_s8(reinterpret_cast<const int8_t*>(codes) + (j * kVectors + v) * kLanes)));
      });
    });
  }
}

}  // namespace
}  // namespace oc::OC_ISA
