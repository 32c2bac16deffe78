// Implicit GEMM: rows are output pixels, columns output channels, the depth runs over the bytes of a window.
//
// A block makes a tile of rows x columns in steps of 64 bytes of depth. Three stages of both operands pass through
// shared memory by cp.async: two are in flight while one is multiplied. In shared memory a row of a stage is its 64
// bytes and nothing else, and lane (g, t) of a warp takes bytes [16 t, 16 t + 16) of a row in one 128-bit load: eight
// lanes read 128 consecutive bytes, which no bank conflicts. That hands the tensor cores the depth in another order
// than memory's, the same one for both operands, and a sum does not mind.
#include "cuda/convolution.hpp"

#include <algorithm>
#include <type_traits>

#include "cuda/convolution_tile.hpp"
#include "cuda/device.hpp"
#include "cuda/epilogue_store.hpp"

namespace oc::cuda {
namespace {

using convolution_tile::kStages;
using convolution_tile::Tile;

__host__ __device__ inline int output_pixels(const Convolution& c) { return c.batch * c.out_height * c.out_width; }

template <class T>
using Sums = int[T::kWarpRows / 16][T::kWarpColumns / 8][4];

// Adds one stage to the sums of a warp's part of the tile.
template <class T>
__device__ __forceinline__ void multiply_stage(const uint8_t* stage, Sums<T>& sums) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const uint8_t* const a = stage + (warp / T::kWarpsAcross * T::kWarpRows + g) * kConvolutionDepth + t * 16;
  const uint8_t* const b =
      stage + T::kInputBytes + (warp % T::kWarpsAcross * T::kWarpColumns + g) * kConvolutionDepth + t * 16;
  uint4 columns[T::kWarpColumns / 8];
#pragma unroll
  for (int j = 0; j < T::kWarpColumns / 8; ++j) {
    columns[j] = *reinterpret_cast<const uint4*>(b + j * 8 * kConvolutionDepth);
  }
#pragma unroll
  for (int i = 0; i < T::kWarpRows / 16; ++i) {
    const uint4 upper = *reinterpret_cast<const uint4*>(a + i * 16 * kConvolutionDepth);
    const uint4 lower = *reinterpret_cast<const uint4*>(a + (i * 16 + 8) * kConvolutionDepth);
#pragma unroll
    for (int j = 0; j < T::kWarpColumns / 8; ++j) {
      mma_u8s8(sums[i][j], {upper.x, lower.x, upper.y, lower.y}, {columns[j].x, columns[j].y});
      mma_u8s8(sums[i][j], {upper.z, lower.z, upper.w, lower.w}, {columns[j].z, columns[j].w});
    }
  }
}

// Where a block's tile lies in the result.
struct Place {
  int row, rows;        // the first, and those of the tile that exist
  int column, columns;  // the first, among all groups
};

// The epilogue, or for a split the sums as they are. What the tensor cores leave to a lane is two columns of many rows:
// by way of shared memory, a slab of 32 rows at a time, a lane gets four columns, and eight lanes fill a sector of y.
template <class T>
__device__ __forceinline__ void write_sums(const Convolution& c, const Place& place, const Sums<T>& sums,
                                           int* slabs, bool wide) {
  constexpr int kRows = 32, kPitch = T::kSlabPitch;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int* const slab = slabs + warp * T::kSlabSums;
  const int column = warp % T::kWarpsAcross * T::kWarpColumns + lane % 8 * 4, n = place.column + column;
  const int count = min(4, place.columns - column);
  const bool whole = gridDim.y == 1;
  FourColumns constants;
  if (whole && count > 0) constants = load_four(c.epilogue, n, count);
  int* const partial = c.partial + int64_t{blockIdx.y} * output_pixels(c) * c.epilogue.columns;
#pragma unroll
  for (int first = 0; first < T::kWarpRows; first += kRows) {
#pragma unroll
    for (int i = 0; i < kRows / 8; ++i) {
#pragma unroll
      for (int j = 0; j < T::kWarpColumns / 8; ++j) {
        const int(&four)[4] = sums[first / 16 + i / 2][j];
        *reinterpret_cast<int2*>(slab + (i * 8 + lane / 4) * kPitch + j * 8 + lane % 4 * 2) =
            make_int2(four[i % 2 * 2], four[i % 2 * 2 + 1]);
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int i = lane / 8; i < kRows; i += 4) {
      const int row = warp / T::kWarpsAcross * T::kWarpRows + first + i;
      if (row >= place.rows || count <= 0) continue;
      const int4 four = *reinterpret_cast<const int4*>(slab + i * kPitch + lane % 8 * 4);
      if (whole) {
        finish_four(c.epilogue, constants, four, place.row + row, n, count, wide);
      } else {
        int* const to = partial + int64_t{place.row + row} * c.epilogue.columns + n;
        to[0] = four.x;
        if (count > 1) to[1] = four.y;
        if (count > 2) to[2] = four.z;
        if (count > 3) to[3] = four.w;
      }
    }
    __syncwarp();  // the slab is free
  }
}

// Grid: (tiles, neighbours being columns of the same rows; splits of the depth; groups). wide: four columns of a group
// can be moved at once.
template <class T, int kWidth>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    convolution_kernel(const __grid_constant__ Convolution c, bool wide) {
  OC_DYNAMIC_SHARED(uint8_t, shared);
  const int tiles_across = (c.plan.outputs + T::kColumns - 1) / T::kColumns, group = blockIdx.z;
  const int first_column = blockIdx.x % tiles_across * T::kColumns;
  const int first_row = static_cast<int>(blockIdx.x / tiles_across) * T::kRows;
  const Place here{first_row, min(T::kRows, output_pixels(c) - first_row), group * c.plan.outputs + first_column,
                   min(T::kColumns, c.plan.outputs - first_column)};
  __shared__ Place place;  // out of the registers until the sums are there
  if (threadIdx.x == 0) place = here;

  const int all_steps = c.plan.padded_depth / kConvolutionDepth;
  const int begin = static_cast<int>(int64_t{all_steps} * blockIdx.y / gridDim.y);
  const int steps = static_cast<int>(int64_t{all_steps} * (blockIdx.y + 1) / gridDim.y) - begin;
  convolution_tile::InputLoader<T, kWidth> input(c, here.row, group);
  const convolution_tile::WeightLoader<T> weights(c, here.column, here.columns);
  const auto stage = [&](int step) { return shared + step % kStages * T::kStageBytes; };

  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) {
      input.fetch(c, begin + step, stage(step));
      weights.fetch(begin + step, stage(step) + T::kInputBytes);
      input.store(stage(step));
    }
    copy_commit();
  }
  Sums<T> sums = {};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    copy_wait<kStages - 2>();
    __syncthreads();  // the stage is there for all, and the one before it is read by none
    const int next = step + kStages - 1;
    if (next < steps) {
      input.fetch(c, begin + next, stage(next));
      weights.fetch(begin + next, stage(next) + T::kInputBytes);
    }
    copy_commit();
    multiply_stage<T>(stage(step), sums);
    if (next < steps) input.store(stage(next));
  }
  copy_wait<0>();
  __syncthreads();  // the stages are free
  write_sums<T>(c, place, sums, reinterpret_cast<int*>(shared), wide);
}

// Adds the splits, a thread an output; y and the sums are small where the depth is split.
__global__ void __launch_bounds__(256) finish_kernel(const __grid_constant__ Convolution c, int splits) {
  const int64_t count = int64_t{output_pixels(c)} * c.epilogue.columns;
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  int sum = 0;
  for (int split = 0; split < splits; ++split) sum += c.partial[split * count + i];
  const int64_t m = i / c.epilogue.columns;
  const int n = static_cast<int>(i - m * c.epilogue.columns);
  finish_sum(c.epilogue, load_column(c.epilogue, n), sum, m, n);
}

// 128 x 128: 48 KB are read from shared memory for 1 M products a step; two blocks of 8 warps on a multiprocessor.
// 128 x 32 where there are few output channels, 64 x 64 where there are few output pixels.
using Large = Tile<128, 128, 64, 32, 2>;
using Tall = Tile<128, 32, 32, 32, 3>;
using Small = Tile<64, 64, 32, 32, 3>;

int64_t ceil_divide(int64_t x, int64_t y) { return (x + y - 1) / y; }

struct Choice {
  enum Kind { kLarge, kTall, kSmall } kind;
  int64_t tiles;  // of a group
  int splits;
};

template <class T>
int64_t tiles_of(const Convolution& c) {
  const int64_t pixels = output_pixels(c);
  return ceil_divide(pixels, T::kRows) * ceil_divide(c.plan.outputs, T::kColumns);
}

// Splits the depth where there are fewer tiles than multiprocessors.
Choice with_splits(const Convolution& c, Choice choice) {
  constexpr int64_t kLeastSteps = 4;  // of a split: less depth would be all prologue
  const int64_t blocks = choice.tiles * c.plan.groups, steps = c.plan.padded_depth / kConvolutionDepth;
  if (blocks > 0 && blocks < c.multiprocessors) {
    const int64_t most = std::max<int64_t>(steps / kLeastSteps, 1);
    choice.splits = static_cast<int>(std::min(2 * c.multiprocessors / blocks, most));
  }
  return choice;
}

Choice choose(const Convolution& c) {
  Choice choice{Choice::kSmall, tiles_of<Small>(c), 1};
  if (c.plan.width == 1) return with_splits(c, choice);  // sixteen loads in flight need the registers of large tiles
  if (c.plan.outputs <= Tall::kColumns) {
    choice = {Choice::kTall, tiles_of<Tall>(c), 1};
  } else if (tiles_of<Large>(c) * c.plan.groups >= c.multiprocessors && c.plan.outputs > Small::kColumns) {
    choice = {Choice::kLarge, tiles_of<Large>(c), 1};
  }
  return with_splits(c, choice);
}

template <class T>
void launch_tile(const Convolution& c, const Choice& choice, void* stream) {
  const dim3 grid(static_cast<unsigned>(choice.tiles), static_cast<unsigned>(choice.splits),
                  static_cast<unsigned>(c.plan.groups));
  const dim3 block(T::kThreads);
  const bool wide = four_at_once(c.epilogue) && c.plan.outputs % 4 == 0;
  constexpr int kBytes = T::kStageBytes * kStages;
  switch (c.plan.width) {
    case 16: OC_LAUNCH((convolution_kernel<T, 16>), grid, block, kBytes, stream, c, wide); break;
    case 8: OC_LAUNCH((convolution_kernel<T, 8>), grid, block, kBytes, stream, c, wide); break;
    case 4: OC_LAUNCH((convolution_kernel<T, 4>), grid, block, kBytes, stream, c, wide); break;
    default:
      if constexpr (std::is_same_v<T, Small>) {
        OC_LAUNCH((convolution_kernel<T, 1>), grid, block, kBytes, stream, c, wide);
      }
      break;
  }
}

}  // namespace

size_t convolution_scratch(const Convolution& c) {
  const int splits = choose(c).splits;
  if (splits == 1) return 0;
  return size_t(splits) * output_pixels(c) * c.epilogue.columns * sizeof(int32_t);
}

void convolution(const Convolution& c, void* stream) {
  const Choice choice = choose(c);
  if (choice.tiles == 0) return;
  switch (choice.kind) {
    case Choice::kLarge: launch_tile<Large>(c, choice, stream); break;
    case Choice::kTall: launch_tile<Tall>(c, choice, stream); break;
    case Choice::kSmall: launch_tile<Small>(c, choice, stream); break;
  }
  if (choice.splits == 1) return;
  constexpr int kThreads = 256;
  const int64_t count = int64_t{output_pixels(c)} * c.epilogue.columns;
  OC_LAUNCH(finish_kernel, dim3(static_cast<unsigned>(ceil_divide(count, kThreads))), dim3(kThreads), 0, stream, c,
            choice.splits);
}

}  // namespace oc::cuda
