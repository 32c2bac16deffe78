// Reductions over the threads of a block.
#pragma once

#include "cuda/device.hpp"

namespace oc::cuda {

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Least {
  __device__ float operator()(float a, float b) const { return fminf(a, b); }
};
struct Greatest {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// `value` of all kThreads threads of the block combined, for each of them, in an order that is always the same. Every
// thread of the block comes here.
template <int kThreads, class Combine>
__device__ __forceinline__ float reduce_block(float value, Combine combine) {
  constexpr int kWarp = 32, kWarps = kThreads / kWarp;
  static_assert(kThreads % kWarp == 0);
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  }
  __shared__ float of_warps[kWarps];
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // the last reduction's values have been read
  if (thread % kWarp == 0) of_warps[thread / kWarp] = value;
  __syncthreads();
  value = of_warps[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) value = combine(value, of_warps[i]);
  return value;
}

}  // namespace oc::cuda
