// CUDA's built-in types and functions, as far as our kernels use them, on the machine of emulation.hpp.
#pragma once

#include "cuda/emulation.hpp"

struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
struct alignas(4) char4 {
  signed char x, y, z, w;
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) { return {x, y, z, w}; }

// Barriers.

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  oc::cuda::emulation::block_barrier(where);
}

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  int nothing = 0;
  oc::cuda::emulation::warp_operation(mask, [](void* const*, unsigned) {}, &nothing);
}

inline void __threadfence() {}
inline void __threadfence_block() {}

// Shuffles and votes.

namespace oc::cuda::emulation {

template <class T>
struct Shuffled {
  T value;
  unsigned source;
};

template <class T>
T shuffle(unsigned mask, T value, unsigned source) {
  Shuffled<T> mine{value, source};
  const WarpOperation operation = [](void* const* operands, unsigned lanes) {
    T values[warpSize];
    for (int i = 0; i < warpSize; ++i) {
      if (operands[i]) values[i] = static_cast<Shuffled<T>*>(operands[i])->value;
    }
    for (int i = 0; i < warpSize; ++i) {
      if (!operands[i]) continue;
      auto& shuffled = *static_cast<Shuffled<T>*>(operands[i]);
      if (!(lanes >> shuffled.source & 1)) throw Error("a shuffle that reads a lane outside its mask");
      shuffled.value = values[shuffled.source];
    }
  };
  warp_operation(mask, operation, &mine);
  return mine.value;
}

inline unsigned ballot(unsigned mask, bool predicate) {
  unsigned mine = predicate;
  const WarpOperation operation = [](void* const* operands, unsigned) {
    unsigned votes = 0;
    for (int i = 0; i < warpSize; ++i) {
      if (operands[i]) votes |= *static_cast<unsigned*>(operands[i]) << i;
    }
    for (int i = 0; i < warpSize; ++i) {
      if (operands[i]) *static_cast<unsigned*>(operands[i]) = votes;
    }
  };
  warp_operation(mask, operation, &mine);
  return mine;
}

inline unsigned segment_end(int width) { return (lane() | static_cast<unsigned>(width - 1)) + 1; }

}  // namespace oc::cuda::emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  const unsigned within = static_cast<unsigned>(width - 1);
  return oc::cuda::emulation::shuffle(
      mask, value, (oc::cuda::emulation::lane() & ~within) | (static_cast<unsigned>(source) & within));
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const unsigned lane = oc::cuda::emulation::lane(), within = lane & static_cast<unsigned>(width - 1);
  return oc::cuda::emulation::shuffle(mask, value, within < delta ? lane : lane - delta);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const unsigned lane = oc::cuda::emulation::lane(), source = lane + delta;
  return oc::cuda::emulation::shuffle(mask, value, source < oc::cuda::emulation::segment_end(width) ? source : lane);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize) {
  const unsigned lane = oc::cuda::emulation::lane(), source = lane ^ static_cast<unsigned>(bits);
  return oc::cuda::emulation::shuffle(mask, value, source < oc::cuda::emulation::segment_end(width) ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return oc::cuda::emulation::ballot(mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Atomics: fibers do not interrupt one another.

template <class T>
T atomicAdd(T* address, T value) {
  return std::exchange(*address, static_cast<T>(*address + value));
}
template <class T>
T atomicMax(T* address, T value) {
  return std::exchange(*address, std::max(*address, value));
}
template <class T>
T atomicMin(T* address, T value) {
  return std::exchange(*address, std::min(*address, value));
}
template <class T>
T atomicExch(T* address, T value) {
  return std::exchange(*address, value);
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

// Memory and bits.

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }

// Bytes of y:x (x the lower) chosen by the four lower nibbles of the selector; bit 3 of a nibble spreads the sign.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned nibble = selector >> 4 * i & 15, byte = both >> 8 * (nibble & 7) & 255;
    result |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return result;
}

// The greater of each pair of bytes.
inline unsigned __vmaxu4(unsigned x, unsigned y) {
  unsigned result = 0;
  for (int i = 0; i < 32; i += 8) result |= std::max(x >> i & 255, y >> i & 255) << i;
  return result;
}

namespace oc::cuda::emulation {

template <class A, class B>
int dot4(unsigned a, unsigned b, int sum) {
  for (int i = 0; i < 4; ++i) sum += static_cast<A>(a >> 8 * i) * static_cast<B>(b >> 8 * i);
  return sum;
}

}  // namespace oc::cuda::emulation

inline int __dp4a(int a, int b, int sum) {
  return oc::cuda::emulation::dot4<int8_t, int8_t>(static_cast<unsigned>(a), static_cast<unsigned>(b), sum);
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  return static_cast<unsigned>(oc::cuda::emulation::dot4<uint8_t, uint8_t>(a, b, static_cast<int>(sum)));
}

// Arithmetic. The fast functions have the errors of the exact ones here: tests allow for what a device may add.

// Saturates, and 0 for what is not a number, as cvt.rni.s32.f32 does.
inline int __float2int_rn(float x) {
  if (std::isnan(x)) return 0;
  if (x >= 2147483648.f) return INT32_MAX;
  if (x < -2147483648.f) return INT32_MIN;
  return static_cast<int>(std::nearbyint(x));
}
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? std::min(x, 1.f) : 0.f; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
using std::max;
using std::min;

#include "cuda/emulation_half.hpp"
