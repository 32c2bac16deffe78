// Block-sparse layers block by block, for few rows of x.
//
// Then the time is that of reading the weights, and every byte of a block is read once, 16 at a time, in the form in
// which the model has them. A warp makes 4 outputs; its lanes take every 32nd block and add up at the end. All of x is
// in shared memory, the rows' words of a column side by side, so that one load gathers them all.
#pragma once

#include "cuda/block_sparse_input.hpp"
#include "cuda/epilogue.hpp"

namespace oc::cuda::block_sparse {

constexpr int kRowWarps = 8, kWarpOutputs = 4;
constexpr int kMostRowBytes = 48 << 10;  // of shared memory

// Words of shared memory that kTokens rows of x take: dp4a has signed bytes only, so they are less 128.
template <int kTokens>
__device__ __forceinline__ void load_rows(const BlockSparseLinear& c, int first_row, bool wide, uint32_t* rows) {
  constexpr uint32_t kToSigned = 0x80808080u;
  const int pieces = (c.weights.depth + 15) / 16;
  for (int i = threadIdx.x; i < pieces * kTokens; i += kRowWarps * 32) {
    const int token = i % kTokens, piece = i / kTokens;
    const uint4 words = load_input(c, first_row + token, piece * 16, kToSigned, wide);
    uint32_t* const to = rows + piece * 4 * kTokens + token;
    to[0] = words.x ^ kToSigned, to[kTokens] = words.y ^ kToSigned;
    to[2 * kTokens] = words.z ^ kToSigned, to[3 * kTokens] = words.w ^ kToSigned;
  }
}

template <int kTokens>
__device__ __forceinline__ void gather_rows(const uint32_t* rows, int column, int (&words)[kTokens]) {
  if constexpr (kTokens % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kTokens; i += 4) {
      const int4 four = *reinterpret_cast<const int4*>(rows + column * kTokens + i);
      words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) words[i] = static_cast<int>(rows[column * kTokens + i]);
  }
}

// The sums over all lanes of kCount values, a power of 2 up to 32: value lane / (32 / kCount) is this lane's. Lanes
// that differ in a bit exchange halves of what they have, as long as there is more than one.
template <int kCount, int kBit = 16>
__device__ __forceinline__ int sum_over_lanes(int (&values)[kCount]) {
  if constexpr (kBit == 0) {
    return values[0];
  } else if constexpr (kCount > 1) {
    const bool upper = threadIdx.x & kBit;
    int kept[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      const int given = upper ? values[i] : values[i + kCount / 2];
      kept[i] = (upper ? values[i + kCount / 2] : values[i]) + __shfl_xor_sync(0xffffffffu, given, kBit);
    }
    return sum_over_lanes<kCount / 2, kBit / 2>(kept);
  } else {
    values[0] += __shfl_xor_sync(0xffffffffu, values[0], kBit);
    return sum_over_lanes<1, kBit / 2>(values);
  }
}

// Adds what this lane has of the blocks of outputs n .. n + 3: sums[output * kTokens + row].
template <int kTokens, int kBlockRows>
__device__ __forceinline__ void multiply_blocks(const BlockSparseWeights& w, int n, const uint32_t* rows,
                                                int (&sums)[kWarpOutputs * kTokens]) {
  constexpr int kAtOnce = kBlockRows < kWarpOutputs ? kBlockRows : kWarpOutputs;  // outputs of a load
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int first = 0; first < kWarpOutputs; first += kAtOnce) {
    if (n + first >= w.outputs) break;
    const int block_row = (n + first) / kBlockRows, within = (n + first) % kBlockRows;
    const int end = w.row_start[block_row + 1];
#pragma unroll 2
    for (int block = w.row_start[block_row] + lane; block < end; block += 32) {
      const int8_t* const from = w.values + (int64_t{block} * kBlockRows + within) * 4;
      int weights[kAtOnce], x[kTokens];
      if constexpr (kAtOnce == 4) {
        const int4 four = *reinterpret_cast<const int4*>(from);
        weights[0] = four.x, weights[1] = four.y, weights[2] = four.z, weights[3] = four.w;
      } else {
        weights[0] = *reinterpret_cast<const int*>(from);
      }
      gather_rows<kTokens>(rows, w.column[block], x);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
        for (int token = 0; token < kTokens; ++token) {
          int& sum = sums[(first + i) * kTokens + token];
          sum = __dp4a(x[token], weights[i], sum);
        }
      }
    }
  }
}

// Grid: (tiles of rows of x, tiles of outputs).
template <int kTokens, int kBlockRows>
__global__ void __launch_bounds__(kRowWarps * 32) rows_kernel(const __grid_constant__ BlockSparseLinear c, bool wide) {
  OC_DYNAMIC_SHARED(uint32_t, rows);
  const int first_row = blockIdx.x * kTokens;
  load_rows<kTokens>(c, first_row, wide, rows);
  __syncthreads();
  const int n = (blockIdx.y * kRowWarps + threadIdx.x / 32) * kWarpOutputs;
  if (n >= c.weights.outputs) return;
  constexpr int kCount = kWarpOutputs * kTokens, kLanes = 32 / kCount;
  int sums[kCount] = {};
  multiply_blocks<kTokens, kBlockRows>(c.weights, n, rows, sums);
  const int sum = sum_over_lanes<kCount>(sums);
  const int lane = threadIdx.x % 32, value = lane / kLanes;
  const int output = n + value / kTokens, m = first_row + value % kTokens;
  if (lane % kLanes != 0 || output >= c.weights.outputs || m >= c.rows) return;
  const EpilogueColumn column = load_column(c.epilogue, output);
  finish_sum(c.epilogue, column, sum + 128 * column.weight_sum, m, output);
}

}  // namespace oc::cuda::block_sparse
