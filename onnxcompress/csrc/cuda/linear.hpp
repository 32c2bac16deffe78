// Linear layers of u8 activations and s8 weights, y = epilogue(x * w^T). Host code may include this.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/epilogue_arguments.hpp"

namespace oc::cuda {

// Pointers are device pointers. The caller has seen to it that
//   m >= 0, 1 <= n <= 2^30, m * n <= 2^42, 1 <= k <= 65792 (so that no sum passes 31 bits);
//   weights are as pack_linear() wrote them, aligned to 16 bytes; x is aligned to 16 bytes;
//   epilogue.columns = n, its weight_sums are pack_linear()'s, and y, y_float, residuals and vectors that are given
//   have their full sizes, are aligned to 16 bytes, and none of them overlaps x;
//   scratch has linear_scratch_bytes() bytes, aligned to 16, and no other launch uses it at the same time.
struct Linear {
  const uint8_t* x = nullptr;  // [m, k]
  const int8_t* weights = nullptr;
  int64_t m = 0;
  int n = 0, k = 0;
  int multiprocessors = 1;  // of the device: how finely the work is cut
  int32_t* scratch = nullptr;
  Epilogue epilogue;
};

// Which kernel, and in how many slices of K; a function of the sizes alone.
struct LinearPlan {
  enum Kernel { kFewRows, kTile64, kTile128, kTile256 };
  Kernel kernel;
  int slices;
};
LinearPlan plan_linear(int64_t m, int n, int k, int multiprocessors);

// Bytes of scratch that linear() needs; often 0.
size_t linear_scratch_bytes(int64_t m, int n, int k, int multiprocessors);

// stream: a cudaStream_t. Launches only; errors of the launch are in cudaGetLastError().
void linear(const Linear& layer, void* stream);

}  // namespace oc::cuda
