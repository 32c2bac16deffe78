// Block-sparse layers on tensor cores, for many rows of x.
//
// An m16n8k32 instruction takes 8 blocks of 16 outputs by 4 inputs: the weights are its operand a, and a register of
// its operand b is the 4 bytes of one row of x at one block's column. So a column costs one gathered word wherever it
// is, and only the columns that a panel of 16 outputs has any weight in are multiplied, at the dense instruction's
// rate. Blocks of 4x4 and 1x4 are joined to panels too: at 80 % of zeros four rows of 4x4 blocks have 59 % of the
// columns, and dp4a, which could skip each block, is 8 to 16 times slower.
//
// The gather is from shared memory, 16 bytes at a time: the rows of x in a tile are numbered so that the words of a
// lane's columns in kTokens / 8 instructions lie side by side. Four lanes with four columns and two rows' worth of
// words share a phase of eight lanes; a column's words are swizzled by its class (column_class), in which the packing
// makes neighbours differ, so that the phase meets each bank once.
#pragma once

#include "cuda/block_sparse_input.hpp"
#include "cuda/epilogue_store.hpp"

namespace oc::cuda::block_sparse {

// A block makes kTokens rows of y by kWarps * kPanels * 16 outputs, from kStageChunks chunks of x at a time.
template <int kTokens_, int kWarps_, int kPanels_, int kStageChunks_>
struct PanelTile {
  static constexpr int kTokens = kTokens_, kWarps = kWarps_, kPanels = kPanels_, kStageChunks = kStageChunks_;
  static constexpr int kThreads = kWarps * 32, kTiles = kTokens / 8;
  static constexpr int kColumns = kStageChunks * kChunkColumns;
  static constexpr int kOutputs = kWarps * kPanels * kPanelRows;
  // A warp's slab of sums, 32 rows of y.
  static constexpr int kSlabPitch = kPanels * kPanelRows + 4, kSlabSums = 32 * kSlabPitch;
  static constexpr int kStageBytes = kColumns * kTokens * 4, kSlabBytes = kWarps * kSlabSums * 4;
  static constexpr int kSharedBytes = kStageBytes > kSlabBytes ? kStageBytes : kSlabBytes;
  static_assert(kTokens == 32 || kTokens == 64);
};

// Where word (column of the stage, row of x) lies. The two bits of a class move 16-byte units within the 128 bytes of
// all banks: bit 1 always by four units; bit 0 by what a lane's neighbour is not away: two units of 32 rows, one of 64.
template <class T>
__device__ __forceinline__ int stage_word(int column, int token) {
  const int low = column & 1, high = (column >> 1 ^ column >> 2) & 1;
  const int swizzle = high << 2 | low << (T::kTokens == 64 ? 0 : 1);
  return column * T::kTokens + ((token >> 2 ^ swizzle) << 2) + (token & 3);
}

// Fills the stage. Half a warp's lanes hold 16 rows, so that their stores meet no bank twice.
template <class T>
__device__ __forceinline__ void load_stage(const BlockSparseLinear& c, int first_row, int first_k, bool wide,
                                           uint32_t* stage) {
  constexpr int kPieces = T::kColumns / 4;  // of 16 bytes, of a row
  const int lane = threadIdx.x % 32;
#pragma unroll 4
  for (int i = threadIdx.x / 32; i < kPieces / 2 * (T::kTokens / 16); i += T::kWarps) {
    const int token = i % (T::kTokens / 16) * 16 + lane % 16, piece = i / (T::kTokens / 16) * 2 + lane / 16;
    const uint4 words = load_input(c, first_row + token, first_k + piece * 16, 0, wide);
    stage[stage_word<T>(piece * 4, token)] = words.x;
    stage[stage_word<T>(piece * 4 + 1, token)] = words.y;
    stage[stage_word<T>(piece * 4 + 2, token)] = words.z;
    stage[stage_word<T>(piece * 4 + 3, token)] = words.w;
  }
}

// Words of this lane's kTiles rows of x at a column.
template <class T>
__device__ __forceinline__ void gather(const uint32_t* stage, int column, uint32_t (&words)[T::kTiles]) {
  const int g = threadIdx.x % 32 / 4;
#pragma unroll
  for (int i = 0; i < T::kTiles; i += 4) {
    const uint4 four = *reinterpret_cast<const uint4*>(stage + stage_word<T>(column, g * T::kTiles + i));
    words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
  }
}

template <class T>
using PanelSums = int[T::kPanels][T::kTiles][4];

// Multiplies groups [begin, end), whose chunk lies in the stage from `column`; the next group is loaded meanwhile.
template <class T>
__device__ __forceinline__ void multiply_groups(const BlockSparsePanelPointers& panels, int begin, int end,
                                                const uint32_t* stage, int column, int (&sums)[T::kTiles][4]) {
  const int lane = threadIdx.x % 32;
  const auto* const values = reinterpret_cast<const uint4*>(panels.values) + lane;
  const auto* const columns = reinterpret_cast<const uint16_t*>(panels.columns) + lane % 4;
  if (begin >= end) return;
  uint4 next = values[int64_t{begin} * 32];
  int next_columns = columns[int64_t{begin} * 4];
#pragma unroll 1
  for (int group = begin; group < end; ++group) {
    const uint4 a = next;
    const int pair = next_columns;
    if (group + 1 < end) {
      next = values[(int64_t{group} + 1) * 32];
      next_columns = columns[(int64_t{group} + 1) * 4];
    }
    uint32_t upper[T::kTiles], lower[T::kTiles];
    gather<T>(stage, column + (pair & 255), upper);
    gather<T>(stage, column + (pair >> 8), lower);
#pragma unroll
    for (int i = 0; i < T::kTiles; ++i) mma_s8u8(sums[i], {a.x, a.y, a.z, a.w}, {upper[i], lower[i]});
  }
}

// The epilogue, 32 rows of y at a time: by way of shared memory a lane gets four neighbours in a row of y.
template <class T>
__device__ __forceinline__ void write_panels(const BlockSparseLinear& c, const PanelSums<T>& sums, int first_row,
                                             int first_output, int* slabs, bool wide) {
  constexpr int kFours = T::kPanels * kPanelRows / 4;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  int* const slab = slabs + threadIdx.x / 32 * T::kSlabSums;
  const int column = lane % kFours * 4, n = first_output + column, count = min(4, c.weights.outputs - n);
  FourColumns constants;
  if (count > 0) constants = load_four(c.epilogue, n, count);
#pragma unroll
  for (int first = 0; first < T::kTiles; first += 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int panel = 0; panel < T::kPanels; ++panel) {
        int* const to = slab + (i * 8 + 2 * t) * T::kSlabPitch + panel * kPanelRows + g;
        const int(&four)[4] = sums[panel][first + i];
        to[0] = four[0], to[T::kSlabPitch] = four[1];
        to[8] = four[2], to[T::kSlabPitch + 8] = four[3];
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int i = lane / kFours; i < 32; i += 32 / kFours) {
      // Column i % 8 of instruction first + i / 8.
      const int m = first_row + i % 8 * T::kTiles + first + i / 8;
      if (m >= c.rows || count <= 0) continue;
      const int4 four = *reinterpret_cast<const int4*>(slab + i * T::kSlabPitch + column);
      finish_four(c.epilogue, constants, four, m, n, count, wide);
    }
    __syncwarp();  // the slab is free
  }
}

// Grid: (tiles of rows of x, tiles of outputs). wide_x: load_input's; wide_y: four_at_once().
template <class T>
__global__ void __launch_bounds__(T::kThreads, 512 / T::kThreads)
    panels_kernel(const __grid_constant__ BlockSparseLinear c, bool wide_x, bool wide_y) {
  OC_DYNAMIC_SHARED(uint32_t, stage);
  const int first_row = blockIdx.x * T::kTokens;
  const int first_panel = (blockIdx.y * T::kWarps + threadIdx.x / 32) * T::kPanels;
  PanelSums<T> sums = {};
  for (int first = 0; first < c.panels.chunks; first += T::kStageChunks) {
    __syncthreads();  // the stage before is read by none
    load_stage<T>(c, first_row, first * kChunkColumns * 4, wide_x, stage);
    __syncthreads();
#pragma unroll
    for (int panel = 0; panel < T::kPanels; ++panel) {
      if (first_panel + panel >= c.panels.panels) continue;
      const int32_t* const starts = c.panels.starts + int64_t{first_panel + panel} * c.panels.chunks;
      for (int chunk = first; chunk < min(first + T::kStageChunks, c.panels.chunks); ++chunk) {
        multiply_groups<T>(c.panels, starts[chunk], starts[chunk + 1], stage, (chunk - first) * kChunkColumns,
                           sums[panel]);
      }
    }
  }
  __syncthreads();  // the last stage is read by none
  write_panels<T>(c, sums, first_row, first_panel * kPanelRows, reinterpret_cast<int*>(stage), wide_y);
}

}  // namespace oc::cuda::block_sparse
