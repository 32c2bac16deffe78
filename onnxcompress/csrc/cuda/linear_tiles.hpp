// What the tiled kernels of dense and of 2:4 sparse linear layers share: the order of the tiles, the pipeline that
// brings x and weights into shared memory, and the way of the sums from the registers of tensor cores to the epilogue.
#pragma once

#include <algorithm>

#include "cuda/epilogue_store.hpp"
#include "cuda/linear.hpp"
#include "cuda/linear_pack.hpp"

namespace oc::cuda {

constexpr int kWarp = 32;

// Sixteen bytes of row `row` of x from column k on, zeros beyond the matrix; for matrices whose rows are not aligned.
__device__ inline uint4 gather16(const Linear& layer, int64_t row, int k) {
  uint32_t words[4] = {};
  if (row < layer.m) {
    const uint8_t* x = layer.x + row * layer.k;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (k + i < layer.k) words[i / 4] |= static_cast<uint32_t>(x[k + i]) << 8 * (i % 4);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The same, for any matrix; kAligned: k % 16 == 0 for all its rows.
template <bool kAligned>
__device__ __forceinline__ uint4 load16(const Linear& layer, int64_t row, int k) {
  if constexpr (kAligned) {
    if (row >= layer.m || k >= layer.k) return make_uint4(0, 0, 0, 0);
    return __ldg(reinterpret_cast<const uint4*>(layer.x + row * layer.k + k));
  } else {
    return gather16(layer, row, k);
  }
}

// kRows rows of x, 64 columns, to shared memory as [kRows][64] bytes, by all threads of the block: asynchronously, or
// where rows are not aligned by plain stores.
template <int kRows, int kThreads, bool kAligned>
__device__ __forceinline__ void stage_x(const Linear& layer, int64_t first_row, int step, uint8_t* shared) {
  constexpr int kChunks = kRows * kSlabDepth / 16;
#pragma unroll
  for (int first = 0; first < kChunks; first += kThreads) {
    const int chunk = first + static_cast<int>(threadIdx.x);
    if (kChunks % kThreads != 0 && chunk >= kChunks) break;
    const int64_t row = first_row + chunk / 4;
    const int k = step * kSlabDepth + chunk % 4 * 16;
    if constexpr (kAligned) {
      const bool valid = row < layer.m && k < layer.k;
      copy_async16(shared + chunk * 16, valid ? layer.x + row * layer.k + k : layer.x, valid);
    } else {
      *reinterpret_cast<uint4*>(shared + chunk * 16) = gather16(layer, row, k);
    }
  }
}

// The part of the steps (64 of K each) that slice blockIdx.y of gridDim.y takes.
struct Steps {
  int begin, end;
};

__device__ inline Steps steps_of_slice(int k) {
  const unsigned steps = static_cast<unsigned>(slabs_of(k, kSlabDepth)), slice = blockIdx.y, slices = gridDim.y;
  return {static_cast<int>(steps * slice / slices), static_cast<int>(steps * (slice + 1) / slices)};
}

// Blocks along x for tiles of this size.
inline unsigned tiles_of(const Linear& layer, int rows, int columns) {
  return static_cast<unsigned>((layer.m + rows - 1) / rows * ((layer.n + columns - 1) / columns));
}

struct TilePosition {
  int64_t row;
  int column;
};

// Tile blockIdx.x: groups of 8 tiles of rows, all columns of a group first, so that the blocks that run at one time
// share rows of x and columns of the weights in L2.
__device__ inline TilePosition tile_position(const Linear& layer, int rows, int columns) {
  constexpr unsigned kGroup = 8;
  const auto down = static_cast<unsigned>((layer.m + rows - 1) / rows);
  const unsigned across = (layer.n + columns - 1) / columns;
  const unsigned group = blockIdx.x / (kGroup * across), within = blockIdx.x - group * (kGroup * across);
  const unsigned height = min(kGroup, down - group * kGroup), column = within / height;
  return {static_cast<int64_t>(group * kGroup + within - column * height) * rows, static_cast<int>(column) * columns};
}

// The four columns of the result that a thread finishes, for any number of rows. n: the first, a multiple of 4.
struct Columns {
  FourColumns constants;
  int n, count;  // how many of the four there are, below 1 for none
  bool wide;     // all, and aligned

  __device__ Columns(const Epilogue& e, int first) : n(first), count(min(4, e.columns - first)) {
    wide = count == 4 && e.columns % 4 == 0;
    constants = load_four(e, count > 0 ? n : 0, count);
  }

  __device__ __forceinline__ void finish(const Epilogue& e, const int4& sums, int64_t m) const {
    finish_four(e, constants, sums, m, n, count, wide);
  }
};

// Writes sums of one slice of K where add_slices() finds them: scratch is [slices][m][n].
__device__ inline void store_partial(const Linear& layer, const int4& sums, int64_t m, int n) {
  int32_t* to = layer.scratch + (blockIdx.y * layer.m + m) * layer.n + n;
  if (layer.n % 4 == 0) {
    *reinterpret_cast<int4*>(to) = sums;
    return;
  }
  to[0] = sums.x;
  if (n + 1 < layer.n) to[1] = sums.y;
  if (n + 2 < layer.n) to[2] = sums.z;
  if (n + 3 < layer.n) to[3] = sums.w;
}

// Rows of its tile that a warp finishes at a time: few enough for shared memory, many for the length of the code.
constexpr int kFinishRows = 32;

// One warp: kFinishRows rows of kColumns sums in its shared memory, `pitch` apart, through the epilogue. A lane has
// four columns, the same for all its rows: global memory is read and written in pieces of kColumns values.
template <int kColumns>
__device__ __forceinline__ void finish_rows(const Linear& layer, const Columns& columns, const int* sums, int pitch,
                                            int64_t first_row) {
  constexpr int kLanesOfRow = kColumns / 4, kRowsAtOnce = kWarp / kLanesOfRow;
  const int lane = threadIdx.x % kWarp, column = lane % kLanesOfRow * 4;
  if (columns.count <= 0) return;
#pragma unroll 1
  for (int row = lane / kLanesOfRow; row < kFinishRows; row += kRowsAtOnce) {
    if (first_row + row >= layer.m) break;
    const int4 four = *reinterpret_cast<const int4*>(sums + row * pitch + column);
    if (gridDim.y > 1) {
      store_partial(layer, four, first_row + row, columns.n);
    } else {
      columns.finish(layer.epilogue, four, first_row + row);
    }
  }
}

// A block's tile of the result, its warps' parts of that, and the stages of the pipeline that feeds them. A kernel's
// Tile derives from this and adds
//   kStages, kBlocks: how many blocks share a multiprocessor; kWeightBytes: of a stage, behind the tile's rows of x;
//   kPitch: of a warp's staged sums, chosen so that put() meets no bank conflicts;
//   Sums, an array of a thread's; stage_weights(layer, column, step, shared); multiply(sums, x, weights of its warp);
//   put(sums, i, shared): rows 16i .. 16i + 15 of a warp's sums, kPitch apart.
template <int kTileRows, int kTileColumns, int kRowsOfWarp, int kColumnsOfWarp>
struct TileShape {
  static constexpr int kRows = kTileRows, kColumns = kTileColumns, kWarpRows = kRowsOfWarp,
                       kWarpColumns = kColumnsOfWarp;
  static constexpr int kWarpsAcross = kColumns / kWarpColumns, kWarps = kRows / kWarpRows * kWarpsAcross;
  static constexpr int kThreads = kWarps * kWarp, kXBytes = kRows * kSlabDepth;
};

template <class Tile>
constexpr int kStageBytes = Tile::kXBytes + Tile::kWeightBytes;

template <class Tile>
constexpr int kSharedBytes = std::max(Tile::kStages * kStageBytes<Tile>, Tile::kWarps * kFinishRows * Tile::kPitch * 4);

// The tile of this block: kStages - 1 steps of K are on their way while one is multiplied.
template <class Tile, bool kAligned>
__device__ __forceinline__ void compute_tile(const Linear& layer, uint8_t* shared) {
  const TilePosition tile = tile_position(layer, Tile::kRows, Tile::kColumns);
  const Steps steps = steps_of_slice(layer.k);
  const int warp = threadIdx.x / kWarp;
  const int warp_row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
  const int warp_column = warp % Tile::kWarpsAcross * Tile::kWarpColumns;
  typename Tile::Sums sums = {};

  const auto copy_step = [&](int step, int stage) {
    if (step < steps.end) {
      uint8_t* to = shared + stage * kStageBytes<Tile>;
      stage_x<Tile::kRows, Tile::kThreads, kAligned>(layer, tile.row, step, to);
      Tile::stage_weights(layer, tile.column, step, to + Tile::kXBytes);
    }
    copy_commit();
  };
  for (int i = 0; i < Tile::kStages - 1; ++i) copy_step(steps.begin + i, i);
  int stage = 0;
  for (int step = steps.begin; step < steps.end; ++step) {
    copy_wait<Tile::kStages - 2>();
    __syncthreads();  // this step has landed for all, and all have read the stage before it, which is filled now
    copy_step(step + Tile::kStages - 1, stage == 0 ? Tile::kStages - 1 : stage - 1);
    const uint8_t* from = shared + stage * kStageBytes<Tile>;
    Tile::multiply(sums, from + warp_row * kSlabDepth,
                   from + Tile::kXBytes + warp % Tile::kWarpsAcross * (Tile::kWeightBytes / Tile::kWarpsAcross));
    stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
  }
  copy_wait<0>();
  __syncthreads();  // from here on a warp uses its own part of shared memory only

  int* mine = reinterpret_cast<int*>(shared) + warp * kFinishRows * Tile::kPitch;
  const int lane = threadIdx.x % kWarp;
  const int column = tile.column + warp_column + lane % (Tile::kWarpColumns / 4) * 4;
#pragma unroll  // by the unrolling, sums are freed as they are put
  for (int i = 0; i < Tile::kWarpRows / 16; i += 2) {
    __syncwarp();
    Tile::put(sums, i, mine);
    Tile::put(sums, i + 1, mine + 16 * Tile::kPitch);
    __syncwarp();
    const Columns columns(layer.epilogue, column);  // not before: registers are short as long as all sums are there
    finish_rows<Tile::kWarpColumns>(layer, columns, mine, Tile::kPitch, tile.row + warp_row + i * 16);
  }
}

// Adds the slices of K that store_partial() wrote, and finishes. Defined in linear.cu.
void add_slices(const Linear& layer, int slices, void* stream);

inline bool rows_are_aligned(int k) { return k % 16 == 0; }

template <class Tile, bool kAligned>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) tiled(Linear layer) {
  OC_DYNAMIC_SHARED(uint8_t, shared);
  compute_tile<Tile, kAligned>(layer, shared);
}

template <class Tile, bool kAligned>
void launch_tiled(const Linear& layer, int slices, void* stream) {
  const dim3 grid(tiles_of(layer, Tile::kRows, Tile::kColumns), static_cast<unsigned>(slices));
  OC_LAUNCH((tiled<Tile, kAligned>), grid, dim3(Tile::kThreads), kSharedBytes<Tile>, stream, layer);
}

// Launches what plan_linear() says. Family: Tile256, Tile128 and Tile64, and few_rows<kAligned>(layer, stream).
template <class Family>
void launch_planned(const Linear& layer, void* stream) {
  if (layer.m == 0) return;
  const LinearPlan plan = plan_linear(layer.m, layer.n, layer.k, layer.multiprocessors);
  const bool aligned = rows_are_aligned(layer.k);
  switch (plan.kernel) {
    case LinearPlan::kFewRows:
      return aligned ? Family::template few_rows<true>(layer, stream) : Family::template few_rows<false>(layer, stream);
    case LinearPlan::kTile256:
      return launch_tiled<typename Family::Tile256, true>(layer, 1, stream);
    case LinearPlan::kTile128:
      return launch_tiled<typename Family::Tile128, true>(layer, 1, stream);
    case LinearPlan::kTile64:
      aligned ? launch_tiled<typename Family::Tile64, true>(layer, plan.slices, stream)
              : launch_tiled<typename Family::Tile64, false>(layer, plan.slices, stream);
      if (plan.slices > 1) add_slices(layer, plan.slices, stream);
  }
}

}  // namespace oc::cuda
