// Many rows of x by packed weights: bound by the tensor cores.
//
// A block computes 32 * kTiles rows of x (32, 64 or 128) by 128 outputs; its eight warps, two along m and four along
// n, have 16 * kTiles by 32 each. Steps of 64 along k pass through kGemmStages stages of shared memory by asynchronous
// copies: x as halves, weights packed. Each warp turns its weights into halves in registers, once for all its rows.
// 128 bytes of a row of x are eight parts of 16; those of odd rows lie rotated by half, so that the eight lanes of a
// 128-bit read, four parts of two rows, meet no bank twice. Stages and accumulators of 128 rows leave room for two
// blocks on a multiprocessor of sm_80 and sm_90.
#pragma once

#include "cuda/weight_only_finish.hpp"

namespace oc::cuda {

constexpr int kGemmStages = 3, kGemmN = 128, kWarpN = 32, kWarpRows = 2;  // warps along m
constexpr int kGemmTiles = kGemmN / kTileRows;
constexpr int kAlignedTiles = 4;  // the kernel that has no registers left to copy rows of odd lengths by hand

template <int kBits, int kTiles>
struct alignas(16) GemmStage {
  static constexpr int kM = kTiles * 16 * kWarpRows;
  half x[kM][kStepK];
  WeightStage<kBits, kGemmTiles> w;
};

// Where part `part` of a row lies in its 64 halves.
__device__ __forceinline__ int x_at(int row, int part) { return (part ^ (row % 2 * 4)) * 8; }

template <int kBits, int kTiles>
__device__ __forceinline__ void fetch_step(GemmStage<kBits, kTiles>& stage, const WeightOnlyLayer& p, unsigned first_m,
                                           int first_tile, int step) {
  constexpr int kParts = kStepK / 8;
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll 1  // as the loop over chunks below: unrolled, they take more than the 128 registers of two blocks
  for (int i = 0; i < stage.kM * kParts / kThreads; ++i) {
    const int row = (i * kThreads + thread) / kParts, part = thread % kParts;
    const unsigned m = first_m + static_cast<unsigned>(row);
    const bool valid = m < static_cast<unsigned>(p.m);
    const half* from = static_cast<const half*>(p.x) + static_cast<int64_t>(valid ? m : 0) * p.w.k;
    half* to = &stage.x[row][x_at(row, part)];
    copy_row_part<kTiles != kAlignedTiles>(to, from, step * kStepK + 8 * part, p.w.k, valid);
  }
  copy_weights(stage.w, p.w, first_tile, step, thread, kThreads);
}

// sums[i][j]: rows 16 i of the warp's by columns 8 j, as mma_f16 leaves them.
template <int kBits, int kTiles>
__device__ __forceinline__ void multiply_step(const GemmStage<kBits, kTiles>& stage, bool has_zero_point,
                                              float (&sums)[kTiles][4][4]) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, g = lane / 4, t = lane % 4;
  const int first_row = thread / kWarp % kWarpRows * 16 * kTiles, first_tile = thread / kWarp / kWarpRows * 2;
#pragma unroll 1
  for (int chunk = 0; chunk < kStepChunks; ++chunk) {
    const LaneWords<kBits> words[2] = {stage.w.words[first_tile][chunk][lane],
                                       stage.w.words[first_tile + 1][chunk][lane]};
    uint32_t w[4][4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {  // tile, row of the lane
      const LaneBlocks<kBits> blocks(stage.w, has_zero_point, first_tile + j / 2, chunk, g);
      decode<kBits>(words[j / 2].of(j % 2), blocks.zero[j % 2], w[j]);
      const half2 scale = __half2half2(j % 2 ? __high2half(blocks.scale) : __low2half(blocks.scale));
      for (int i = 0; i < 4; ++i) w[j][i] = as_word(__hmul2(as_halves(w[j][i]), scale));
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int row = first_row + 16 * i + g, at = x_at(row, 4 * chunk + t);
      const uint4 a = *reinterpret_cast<const uint4*>(&stage.x[row][at]);
      const uint4 below = *reinterpret_cast<const uint4*>(&stage.x[row + 8][at]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        mma_f16(sums[i][j], {a.x, below.x, a.y, below.y}, {w[j][0], w[j][1]});
        mma_f16(sums[i][j], {a.z, below.z, a.w, below.w}, {w[j][2], w[j][3]});
      }
    }
  }
}

template <int kBits, int kTiles>
__global__ void __launch_bounds__(kThreads, 2) gemm_kernel(WeightOnlyLayer p, int split_steps) {
  using Stage = GemmStage<kBits, kTiles>;
  OC_DYNAMIC_SHARED(Stage, stages);
  const unsigned first_m = blockIdx.x * Stage::kM;
  const int first_tile = static_cast<int>(blockIdx.y) * kGemmTiles;
  const int begin = static_cast<int>(blockIdx.z) * split_steps;
  const int end = min(begin + split_steps, (p.w.k + kStepK - 1) / kStepK);
  const auto fetch = [&](int step, int slot) {
    if (step < end) fetch_step(stages[slot], p, first_m, first_tile, step);
    copy_commit();
  };
  for (int i = 0; i < kGemmStages - 1; ++i) fetch(begin + i, i);

  float sums[kTiles][4][4] = {};
  int slot = 0;
#pragma unroll 1
  for (int step = begin; step < end; ++step) {
    copy_wait<kGemmStages - 2>();
    __syncthreads();  // all threads' copies of this stage are there, and the stage to be fetched has been read
    fetch(step + kGemmStages - 1, slot ? slot - 1 : kGemmStages - 1);
    multiply_step(stages[slot], p.w.zero_point != nullptr, sums);
    slot = slot == kGemmStages - 1 ? 0 : slot + 1;
  }
  copy_wait<0>();

  auto& values = reinterpret_cast<float(&)[kTiles * 16]>(sums);
  const int64_t tile = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  const auto all = [](int) { return true; };
  const int splits = static_cast<int>(gridDim.z);
  if (!add_splits(values, p, tile, static_cast<int>(blockIdx.z), splits, all)) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const unsigned m = first_m + static_cast<unsigned>(warp % kWarpRows * 16 * kTiles + lane / 4);
  const int n = static_cast<int>(blockIdx.y) * kGemmN + warp / kWarpRows * kWarpN + 4 * (lane % 4);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {  // tile, upper or lower eight rows of x
      const auto& left = sums[i][j / 2 * 2];
      const auto& right = sums[i][j / 2 * 2 + 1];
      const int at = j % 2 * 2;
      const float four[4] = {left[at], left[at + 1], right[at], right[at + 1]};
      finish(p, m + static_cast<unsigned>(16 * i + 8 * (j % 2)), n + kTileRows * (j / 2), four);
    }
  }
}

}  // namespace oc::cuda
