// What both kernels of weight_only.cu do with their sums: add those of the parts of k, and turn them into y.
#pragma once

#include "cuda/activate.hpp"
#include "cuda/together.hpp"
#include "cuda/weight_only_decode.hpp"

namespace oc::cuda {

constexpr int kThreads = 256;

// Adds the values that the blocks of all parts of k have for one tile; true in the last block to arrive, which then
// has the sums, always added in the order of the parts. `active(i)`: whether this thread's value i means anything.
template <int kValues, class Active>
__device__ __forceinline__ bool add_splits(float (&values)[kValues], const WeightOnlyLayer& p, int64_t tile, int split,
                                           int splits, Active active) {
  if (splits == 1) return true;
  __shared__ bool is_last;
  constexpr int kTileValues = kValues * kThreads;
  const int thread = static_cast<int>(threadIdx.x);
  float* of_tile = p.partial + tile * splits * kTileValues;
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    if (active(i)) of_tile[split * kTileValues + i * kThreads + thread] = values[i];
  }
  __threadfence();  // what this block wrote is there before its arrival is counted
  __syncthreads();
  if (thread == 0) is_last = atomicAdd(p.arrived + tile, 1) == splits - 1;
  __syncthreads();
  if (!is_last) return false;
  __threadfence();
  const volatile float* written = of_tile;  // by other multiprocessors: not from this one's cache
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    float sum = 0;
    for (int s = 0; s < splits && active(i); ++s) sum += written[s * kTileValues + i * kThreads + thread];
    values[i] = sum;
  }
  if (thread == 0) p.arrived[tile] = 0;
  return true;
}

// Residual and output of kCount neighbouring values of row m, from `column` on.
template <int kCount>
__device__ __forceinline__ void put(const WeightOnlyLayer& p, unsigned m, int column, int columns,
                                    float (&values)[kCount]) {
  const int64_t at = static_cast<int64_t>(m) * columns + column;
  const int count = columns - column;
  if (p.residual) {
    float residual[kCount];
    if (p.float_residual) {
      load_together(static_cast<const float*>(p.residual) + at, residual, count);
    } else {
      load_together(static_cast<const half*>(p.residual) + at, residual, count);
    }
    for (int i = 0; i < kCount; ++i) values[i] += residual[i];
  }
  if (p.float_output) {
    store_together(static_cast<float*>(p.y) + at, values, count);
  } else {
    store_together(static_cast<half*>(p.y) + at, values, count);
  }
}

// y of the sums of row m and kCount (even) neighbouring rows of w, from n on.
template <int kCount>
__device__ __forceinline__ void finish(const WeightOnlyLayer& p, unsigned m, int n, const float (&sums)[kCount]) {
  if (m >= static_cast<unsigned>(p.m) || n >= p.w.n) return;
  float linear[kCount];
  for (int i = 0; i < kCount; ++i) {
    const bool within = n + i < p.w.n;
    linear[i] = sums[i] * (within ? p.w.channel[n + i] : 0.f) + (within && p.bias ? p.bias[n + i] : 0.f);
  }
  if (p.gated) {
    float values[kCount / 2];
    for (int i = 0; i < kCount / 2; ++i) values[i] = activate(p.activation, linear[2 * i]) * linear[2 * i + 1];
    put(p, m, n / 2, p.w.n / 2, values);
  } else {
    for (int i = 0; i < kCount; ++i) linear[i] = activate(p.activation, linear[i]);
    put(p, m, n, p.w.n, linear);
  }
}

}  // namespace oc::cuda
