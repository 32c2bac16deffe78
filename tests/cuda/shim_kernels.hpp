// Kernels that try every part of the emulation shim; test_shim.py calls them.
#pragma once

#include "bindings.hpp"

using namespace oc::cuda;

// A warp's registers are given and taken as [lane][register].
template <class D, int kB, class Multiply>
__device__ void with_fragments(const uint32_t* a, const uint32_t* b, D* d, Multiply multiply) {
  const int lane = threadIdx.x;
  uint32_t ra[4], rb[kB];
  D rd[4];
  for (int i = 0; i < 4; ++i) ra[i] = a[lane * 4 + i], rd[i] = d[lane * 4 + i];
  for (int i = 0; i < kB; ++i) rb[i] = b[lane * kB + i];
  multiply(rd, ra, rb);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = rd[i];
}

__global__ void multiply_kernel(int kind, const uint32_t* a, const uint32_t* b, const uint32_t* metadata, void* d) {
  int* const sums = static_cast<int*>(d);
  if (kind == 0) with_fragments<int, 2>(a, b, sums, [](auto& d, auto& a, auto& b) { mma_u8s8(d, a, b); });
  if (kind == 1) with_fragments<int, 2>(a, b, sums, [](auto& d, auto& a, auto& b) { mma_s8u8(d, a, b); });
  if (kind == 2) {
    with_fragments<float, 2>(a, b, static_cast<float*>(d), [](auto& d, auto& a, auto& b) { mma_f16(d, a, b); });
  }
  if (kind == 3) {
    with_fragments<int, 4>(a, b, sums, [&](auto& d, auto& a, auto& b) {
      mma_sparse_s8u8(d, a, b, metadata[threadIdx.x]);
    });
  }
}

void multiply(int kind, const uint32_t* a, const uint32_t* b, const uint32_t* metadata, void* d) {
  OC_LAUNCH(multiply_kernel, dim3(1), dim3(32), 0, nullptr, kind, a, b, metadata, d);
}

// rows [32][16] bytes, r [lane][4].
__global__ void matrices_kernel(const uint8_t* rows, uint32_t* r, bool transposed) {
  OC_DYNAMIC_SHARED(uint8_t, tile);
  const int lane = threadIdx.x;
  copy_async16(tile + lane * 16, rows + lane * 16, true);
  copy_commit();
  copy_wait<0>();
  __syncwarp();
  uint32_t loaded[4];
  if (transposed) {
    load_matrices_transposed(loaded, tile + lane * 16);
  } else {
    load_matrices(loaded, tile + lane * 16);
  }
  for (int i = 0; i < 4; ++i) r[lane * 4 + i] = loaded[i];
}

void matrices(const uint8_t* rows, uint32_t* r, bool transposed) {
  OC_LAUNCH(matrices_kernel, dim3(1), dim3(32), 512, nullptr, rows, r, transposed);
}

// y[lane] of several shuffles and votes, [8][32].
__global__ void shuffles_kernel(const int* x, int* y) {
  const int lane = threadIdx.x % 32, value = x[lane];
  constexpr unsigned kAll = 0xffffffffu;
  const int results[8] = {
      __shfl_sync(kAll, value, 5), __shfl_sync(kAll, value, lane + 1, 8), __shfl_up_sync(kAll, value, 3u),
      __shfl_down_sync(kAll, value, 3u, 16), __shfl_xor_sync(kAll, value, 9),
      static_cast<int>(__ballot_sync(kAll, value > 0)), __any_sync(kAll, value > 0), __all_sync(kAll, value > 0)};
  if (threadIdx.x >= 32) {
    for (int i = 0; i < 8; ++i) y[i * 32 + lane] = results[i];
  }
}

void shuffles(const int* x, int* y) { OC_LAUNCH(shuffles_kernel, dim3(1), dim3(64), 0, nullptr, x, y); }

// y = x reversed within each block of 64 values, through shared memory; without the barrier, wrong.
template <bool kBarrier>
__global__ void reverse_kernel(const int* x, int* y) {
  __shared__ int tile[64];
  const int i = threadIdx.x;
  tile[i] = x[blockIdx.x * 64 + i];
  if constexpr (kBarrier) __syncthreads();
  y[blockIdx.x * 64 + i] = tile[63 - i];
}

void reverse(const int* x, int* y, int blocks, bool barrier) {
  if (barrier) {
    OC_LAUNCH((reverse_kernel<true>), dim3(blocks), dim3(64), 0, nullptr, x, y);
  } else {
    OC_LAUNCH((reverse_kernel<false>), dim3(blocks), dim3(64), 0, nullptr, x, y);
  }
}

// One value goes round: thread i writes where thread i + 1 has read. Right only with both barriers.
template <bool kFirst, bool kSecond>
__global__ void rounds_kernel(int* y) {
  __shared__ int slots[64];
  const int i = threadIdx.x;
  slots[i] = i;
  for (int round = 0; round < 3; ++round) {
    if constexpr (kFirst) __syncthreads();
    const int next = slots[(i + 1) % 64];
    if constexpr (kSecond) __syncthreads();
    slots[i] = next;
  }
  y[i] = slots[i];
}

void rounds(int* y, bool first, bool second) {
  if (first && second) {
    OC_LAUNCH((rounds_kernel<true, true>), dim3(1), dim3(64), 0, nullptr, y);
  } else if (first) {
    OC_LAUNCH((rounds_kernel<true, false>), dim3(1), dim3(64), 0, nullptr, y);
  } else {
    OC_LAUNCH((rounds_kernel<false, true>), dim3(1), dim3(64), 0, nullptr, y);
  }
}

// Every warp reads what the next one wrote some warp-wide instructions earlier, with no barrier between.
__global__ void skewed_kernel(int* y) {
  __shared__ int slots[4];
  const int warp = threadIdx.x / 32;
  slots[warp] = -1;
  __syncthreads();
  slots[warp] = warp;
  for (int i = 0; i < 10; ++i) __syncwarp();
  y[threadIdx.x] = slots[(warp + 1) % 4];
}

void skewed(int* y) { OC_LAUNCH(skewed_kernel, dim3(1), dim3(128), 0, nullptr, y); }

// Copies 32 chunks of 16 bytes a round, `valid` of them, in two stages; waits for all but `left` groups.
template <int kLeft>
__global__ void pipeline_kernel(const uint8_t* x, uint8_t* y, int valid) {
  OC_DYNAMIC_SHARED(uint8_t, stages);
  const int i = threadIdx.x;
  for (int stage = 0; stage < 2; ++stage) {
    copy_async16(stages + (stage * 32 + i) * 16, x + (stage * 32 + i) * 16, i < valid);
    copy_commit();
  }
  copy_wait<kLeft>();
  __syncthreads();
  for (int byte = 0; byte < 16; ++byte) y[i * 16 + byte] = stages[i * 16 + byte];
  if constexpr (kLeft == 0) {
    for (int byte = 0; byte < 16; ++byte) y[512 + i * 16 + byte] = stages[512 + i * 16 + byte];
  }
}

void pipeline(const uint8_t* x, uint8_t* y, int valid, int left) {
  if (left == 0) OC_LAUNCH((pipeline_kernel<0>), dim3(1), dim3(32), 1024, nullptr, x, y, valid);
  if (left == 1) OC_LAUNCH((pipeline_kernel<1>), dim3(1), dim3(32), 1024, nullptr, x, y, valid);
  if (left == 2) OC_LAUNCH((pipeline_kernel<2>), dim3(1), dim3(32), 1024, nullptr, x, y, valid);
}

// Misuse that a GPU does not report.
__global__ void misuse_kernel(int kind, uint8_t* memory) {
  const int i = threadIdx.x;
  uint32_t a[4] = {}, b[4] = {};
  int d[4] = {};
  switch (kind) {
    case 0:  // half of the block at one barrier, half at another
      if (i < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      break;
    case 1:  // a warp that waits for lanes that wait for the block
      if (i % 2) {
        __syncthreads();
      } else {
        __syncwarp();
      }
      break;
    case 2:  // a lane that has left
      if (i == 7) return;
      __shfl_sync(0xffffffffu, i, 0);
      break;
    case 3:  // a lane outside the mask is read
      if (i < 16) __shfl_sync(0xffffu, i, 20);
      break;
    case 4:  // different masks that share lanes
      __shfl_xor_sync(i % 32 < 16 ? 0xffffffffu : 0xffff0000u, i, 1);
      break;
    case 5:  // the caller is not in its mask
      __syncwarp(1u);
      break;
    case 6:  // not on 16 bytes
      copy_async16(memory + 8, memory, true);
      break;
    case 7:  // two stored values of one column
      mma_sparse_s8u8(d, a, b, 0);
      break;
    case 8:  // different instructions
      if (i % 2) {
        __syncwarp();
      } else {
        __ballot_sync(0xffffffffu, 1);
      }
      break;
    case 9:  // fine in whole warps only
      __syncwarp();
      break;
    default:  // none
      __syncthreads();
  }
}

void misuse(int kind, uint8_t* memory, int grid, int block, int64_t shared_bytes) {
  OC_LAUNCH(misuse_kernel, dim3(static_cast<unsigned>(grid)), dim3(static_cast<unsigned>(block)),
            static_cast<size_t>(shared_bytes), nullptr, kind, memory);
}

// Threads that have left are not waited for; indices of blocks and threads in three dimensions.
__global__ void indices_kernel(int* y) {
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  if (thread % 3 == 0) return;
  __syncthreads();
  atomicAdd(&y[block * 24 + thread], 1 + thread);
}

void indices(int* y) { OC_LAUNCH(indices_kernel, dim3(2, 3, 2), dim3(2, 3, 4), 0, nullptr, y); }

void to_half(const float* x, uint16_t* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = __float2half_rn(x[i]).bits;
}
void from_half(const uint16_t* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = __half2float({x[i]});
}

// y [n][6]: __dp4a signed and unsigned, __byte_perm, __popc, __clz, __ffs of pairs of words.
void integers(const uint32_t* x, uint32_t* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t a = x[3 * i], b = x[3 * i + 1], c = x[3 * i + 2];
    const uint32_t results[] = {static_cast<uint32_t>(__dp4a(static_cast<int>(a), static_cast<int>(b), 7)),
                                __dp4a(a, b, 7u),
                                __byte_perm(a, b, c),
                                static_cast<uint32_t>(__popc(a)),
                                static_cast<uint32_t>(__clz(static_cast<int>(a))),
                                static_cast<uint32_t>(__ffs(static_cast<int>(a)))};
    for (int j = 0; j < 6; ++j) y[6 * i + j] = results[j];
  }
}

void activations(int kind, const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = activate(static_cast<Activation>(kind), x[i]);
}

OC_EXPORT(multiply, multiply)
OC_EXPORT(matrices, matrices)
OC_EXPORT(shuffles, shuffles)
OC_EXPORT(reverse, reverse)
OC_EXPORT(rounds, rounds)
OC_EXPORT(skewed, skewed)
OC_EXPORT(pipeline, pipeline)
OC_EXPORT(misuse, misuse)
OC_EXPORT(indices, indices)
OC_EXPORT(to_half, to_half)
OC_EXPORT(from_half, from_half)
OC_EXPORT(integers, integers)
OC_EXPORT(activations, activations)
