// A few rows of x by packed weights: bound by reading the weights once from memory.
//
// A tile of 16 outputs is an operand of the tensor cores, whose single-precision sums cost nothing beside the loads;
// up to 8 rows of x are the other one (kColumns = 2: 16 rows). The eight warps of a block take kTiles tiles and share
// each one's k, in turns of 64. Every warp fetches its weights through a ring of its own of kStages asynchronous
// copies, 128 bits a lane: some 2 KB a warp are under way at any time, and no barrier stops the block. The block's
// part of x lies in shared memory; more tiles share it when it has more rows, to keep reading it below half of the
// weights' bytes.
#pragma once

#include "cuda/weight_only_finish.hpp"

namespace oc::cuda {

constexpr int kStages = 4, kWarps = kThreads / kWarp;
constexpr int kXBytes = 32 << 10;  // of x in shared memory at most: three to four blocks fit a multiprocessor

// Halves of a row of x in shared memory. The odd half of 128 bytes puts neighbouring rows in other banks.
__host__ __device__ constexpr int x_pitch(int split_steps) { return split_steps * kStepK + 32; }

template <int kBits, int kTiles, int kColumns>
struct Gemv {
  static constexpr int kSharers = kWarps / kTiles;        // warps of a tile
  static constexpr int kN = kTiles * kTileRows, kM = 8 * kColumns;
  static constexpr int kPairs = kN / 2 * kM;              // of neighbouring outputs
  static constexpr int kValues = 2 * ((kPairs + kThreads - 1) / kThreads);
  static constexpr int kRingBytes = kWarps * kStages * static_cast<int>(sizeof(WeightStage<kBits, 1>));
  static constexpr int kSumBytes = kSharers * kM * kN * static_cast<int>(sizeof(float));

  static int shared_bytes(int m, int split_steps) {
    const int x = m * x_pitch(split_steps) * static_cast<int>(sizeof(half));
    return kRingBytes + (x > kSumBytes ? x : kSumBytes);
  }
};

// Adds a step's products: sums[column][i] as mma_f16 leaves them.
template <int kBits, int kColumns>
__device__ __forceinline__ void multiply_step(const WeightStage<kBits, 1>& stage, bool has_zero_point, const half* x,
                                              int pitch, int m, float (&sums)[kColumns][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int chunk = 0; chunk < kStepChunks; ++chunk) {
    const LaneBlocks<kBits> blocks(stage, has_zero_point, 0, chunk, g);
    const LaneWords<kBits> words = stage.words[0][chunk][lane];
    uint32_t w[2][4];
    for (int row = 0; row < 2; ++row) decode<kBits>(words.of(row), blocks.zero[row], w[row]);
    const float2 scale = __half22float2(blocks.scale);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      uint4 b = make_uint4(0, 0, 0, 0);
      if (8 * c + g < m) b = *reinterpret_cast<const uint4*>(x + (8 * c + g) * pitch + chunk * kChunkK + 8 * t);
      float part[4] = {};
      mma_f16(part, {w[0][0], w[1][0], w[0][1], w[1][1]}, {b.x, b.y});
      mma_f16(part, {w[0][2], w[1][2], w[0][3], w[1][3]}, {b.z, b.w});
      sums[c][0] += part[0] * scale.x, sums[c][1] += part[1] * scale.x;
      sums[c][2] += part[2] * scale.y, sums[c][3] += part[3] * scale.y;
    }
  }
}

template <int kBits, int kTiles, int kColumns>
__global__ void __launch_bounds__(kThreads, 4) gemv_kernel(WeightOnlyLayer p, int split_steps) {
  using Shape = Gemv<kBits, kTiles, kColumns>;
  OC_DYNAMIC_SHARED(unsigned char, shared);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  auto* ring = reinterpret_cast<WeightStage<kBits, 1>*>(shared) + warp * kStages;
  auto* x = reinterpret_cast<half*>(shared + Shape::kRingBytes);
  const int begin = static_cast<int>(blockIdx.y) * split_steps;
  const int end = min(begin + split_steps, (p.w.k + kStepK - 1) / kStepK);
  const int tile = static_cast<int>(blockIdx.x) * kTiles + warp % kTiles, share = warp / kTiles;
  const int pitch = x_pitch(split_steps);

  // x arrives with the first group of copies.
  const int parts = (end - begin) * (kStepK / 8);
  for (int i = thread; i < p.m * parts; i += kThreads) {
    const int row = i / parts, part = i % parts;
    const half* from = static_cast<const half*>(p.x) + static_cast<int64_t>(row) * p.w.k;
    copy_row_part<true>(x + row * pitch + 8 * part, from, begin * kStepK + 8 * part, p.w.k, true);
  }
  const auto fetch = [&](int turn) {
    const int step = begin + share + turn * Shape::kSharers;
    if (step < end) copy_weights(ring[turn % kStages], p.w, tile, step, lane, kWarp);
    copy_commit();
  };
  for (int turn = 0; turn < kStages - 1; ++turn) fetch(turn);
  copy_wait<kStages - 2>();
  __syncthreads();

  float sums[kColumns][4] = {};
  for (int turn = 0; begin + share + turn * Shape::kSharers < end; ++turn) {
    copy_wait<kStages - 2>();
    __syncwarp();  // all lanes' copies of this stage are there, and the stage to be fetched has been read
    fetch(turn + kStages - 1);
    const half* of_step = x + (share + turn * Shape::kSharers) * kStepK;
    multiply_step(ring[turn % kStages], p.w.zero_point != nullptr, of_step, pitch, p.m, sums);
  }
  copy_wait<0>();
  __syncthreads();  // x has been read: its place takes the sums of the warps

  auto* of_warps = reinterpret_cast<float*>(x);  // [sharers][m][n]
  for (int c = 0; c < kColumns; ++c) {
    for (int i = 0; i < 4; ++i) {
      const int g = lane / 4, m = 8 * c + 2 * (lane % 4) + i % 2, row = i / 2;
      const int n = warp % kTiles * kTileRows + 4 * (g / 2) + 2 * row + g % 2;
      of_warps[(share * Shape::kM + m) * Shape::kN + n] = sums[c][i];
    }
  }
  __syncthreads();

  const auto row_of = [&](int i) { return (i / 2 * kThreads + thread) / (Shape::kN / 2); };
  const auto column_of = [&](int i) { return (i / 2 * kThreads + thread) % (Shape::kN / 2) * 2; };
  const auto is_active = [&](int i) { return row_of(i) < min(p.m, Shape::kM); };
  float values[Shape::kValues] = {};
  for (int i = 0; i < Shape::kValues; ++i) {
    for (int s = 0; s < Shape::kSharers && is_active(i); ++s) {
      values[i] += of_warps[(s * Shape::kM + row_of(i)) * Shape::kN + column_of(i) + i % 2];
    }
  }
  const int splits = static_cast<int>(gridDim.y);
  if (!add_splits(values, p, blockIdx.x, static_cast<int>(blockIdx.y), splits, is_active)) return;
  for (int i = 0; i < Shape::kValues; i += 2) {
    if (!is_active(i)) continue;
    const float pair[2] = {values[i], values[i + 1]};
    finish(p, static_cast<unsigned>(row_of(i)), static_cast<int>(blockIdx.x) * Shape::kN + column_of(i), pair);
  }
}

}  // namespace oc::cuda
