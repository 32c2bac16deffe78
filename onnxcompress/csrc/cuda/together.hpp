// Neighbouring values that are loaded or stored at once.
#pragma once

#include "cuda/device.hpp"

namespace oc::cuda {

// Moves of more than 16 bytes are several.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Together {
  T values[kCount];
};

__device__ __forceinline__ float to_float(half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ void assign(half& to, float value) { to = __float2half_rn(value); }
__device__ __forceinline__ void assign(float& to, float value) { to = value; }
__device__ __forceinline__ void assign(uint8_t& to, uint8_t value) { to = value; }

template <int kCount, class T>
__device__ __forceinline__ bool is_together(const T* address, int count) {
  return count >= kCount && reinterpret_cast<uintptr_t>(address) % alignof(Together<T, kCount>) == 0;
}

// The first `count` of the values from `from` on; the others, where count is below kCount, become `fill`.
template <class T, int kCount>
__device__ __forceinline__ void load_together(const T* from, float (&values)[kCount], int count, float fill = 0) {
  if (is_together<kCount>(from, count)) {
    const auto all = *reinterpret_cast<const Together<T, kCount>*>(from);
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = to_float(all.values[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = i < count ? to_float(from[i]) : fill;
}

// Stores the first `count` of the values.
template <class T, class From, int kCount>
__device__ __forceinline__ void store_together(T* to, const From (&values)[kCount], int count) {
  if (is_together<kCount>(to, count)) {
    Together<T, kCount> all;
#pragma unroll
    for (int i = 0; i < kCount; ++i) assign(all.values[i], values[i]);
    *reinterpret_cast<Together<T, kCount>*>(to) = all;
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) assign(to[i], values[i]);
  }
}

}  // namespace oc::cuda
