// u8 x s8 matrix multiplication on tensor cores.
#include "cuda/linear.hpp"

#include <algorithm>

#include "cuda/linear_tiles.hpp"

namespace oc::cuda {

namespace {

// Two multiplications over the 64 columns of K that a lane's 16 bytes of each factor cover; see linear_pack.hpp.
// low, high: rows g and g + 8 of x.
__device__ __forceinline__ void multiply_slab(int (&sums)[4], const uint4& low, const uint4& high, const uint4& w) {
  const uint32_t first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
  const uint32_t w_first[2] = {w.x, w.y}, w_second[2] = {w.z, w.w};
  mma_u8s8(sums, first, w_first);
  mma_u8s8(sums, second, w_second);
}

template <int kRows, int kColumns, int kRowsOfWarp, int kColumnsOfWarp, int kStageCount, int kBlocksOfSm>
struct DenseTile : TileShape<kRows, kColumns, kRowsOfWarp, kColumnsOfWarp> {
  using Shape = TileShape<kRows, kColumns, kRowsOfWarp, kColumnsOfWarp>;
  static constexpr int kStages = kStageCount, kBlocks = kBlocksOfSm;
  static constexpr int kWeightBytes = kColumns * kSlabDepth;
  static constexpr int kPitch = kColumnsOfWarp + 8;  // the rows that a half warp writes pairs to start 8 banks apart
  using Sums = int[kRowsOfWarp / 16][kColumnsOfWarp / 8][4];

  __device__ static __forceinline__ void stage_weights(const Linear& layer, int column, int step, uint8_t* shared) {
    const int64_t deep = slabs_of(layer.k, kSlabDepth), outputs = slabs_of(layer.n, kSlabOutputs);
    constexpr int kChunks = kWeightBytes / 16, kChunksOfSlab = kSlabBytes / 16;
    static_assert(kChunks % Shape::kThreads == 0);
#pragma unroll
    for (int first = 0; first < kChunks; first += Shape::kThreads) {
      const int chunk = first + static_cast<int>(threadIdx.x);
      const int64_t output = column / kSlabOutputs + chunk / kChunksOfSlab;
      const bool valid = output < outputs;
      const int64_t slab = valid ? output * deep + step : 0;
      copy_async16(shared + chunk * 16, layer.weights + slab * kSlabBytes + chunk % kChunksOfSlab * 16, valid);
    }
  }

  // The same bytes of all 8 rows, and of all slabs, lie 512 apart for a lane, side by side for the lanes of a warp.
  __device__ static __forceinline__ void multiply(Sums& sums, const uint8_t* x, const uint8_t* weights) {
    const int lane = threadIdx.x % kWarp;
    const auto* from_x = reinterpret_cast<const uint4*>(x) + lane;
    const auto* from_weights = reinterpret_cast<const uint4*>(weights) + lane;
    uint4 w[kColumnsOfWarp / 8];
#pragma unroll
    for (int j = 0; j < kColumnsOfWarp / 8; ++j) w[j] = from_weights[j * kWarp];
#pragma unroll
    for (int i = 0; i < kRowsOfWarp / 16; ++i) {
      const uint4 low = from_x[2 * i * kWarp], high = from_x[(2 * i + 1) * kWarp];
#pragma unroll
      for (int j = 0; j < kColumnsOfWarp / 8; ++j) multiply_slab(sums[i][j], low, high, w[j]);
    }
  }

  __device__ static __forceinline__ void put(const Sums& sums, int i, int* shared) {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < kColumnsOfWarp / 8; ++j) {
      int* at = shared + g * kPitch + j * 8 + 2 * t;
      *reinterpret_cast<int2*>(at) = make_int2(sums[i][j][0], sums[i][j][1]);
      *reinterpret_cast<int2*>(at + 8 * kPitch) = make_int2(sums[i][j][2], sums[i][j][3]);
    }
  }
};

// Up to 16 rows: bound by the reading of weights, so every warp reads its share of them, past shared memory, once.
// A block has 8 * kSlabs outputs, and its 8 warps the steps of K in turn; the sums of the warps are added at the end.
constexpr int kFewRows = 16, kFewRowsWarps = 8;

template <int kSlabs, bool kAligned>
__global__ void __launch_bounds__(kFewRowsWarps* kWarp) few_rows(Linear layer) {
  constexpr int kColumns = kSlabs * kSlabOutputs, kPitch = kColumns + 8;
  __shared__ int partial[kFewRowsWarps][kFewRows][kPitch];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int64_t deep = slabs_of(layer.k, kSlabDepth), first = static_cast<int64_t>(blockIdx.x) * kSlabs;
  const int here = static_cast<int>(min(static_cast<int64_t>(kSlabs), slabs_of(layer.n, kSlabOutputs) - first));
  const auto* weights = reinterpret_cast<const uint4*>(layer.weights + first * deep * kSlabBytes) + lane;
  int sums[kSlabs][4] = {};
#pragma unroll 4
  for (int step = warp; step < deep; step += kFewRowsWarps) {
    uint4 w[kSlabs];
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) {
      w[i] = i < here ? __ldg(weights + (i * deep + step) * kWarp) : make_uint4(0, 0, 0, 0);
    }
    const int k = step * kSlabDepth + t * 16;
    const uint4 low = load16<kAligned>(layer, g, k), high = load16<kAligned>(layer, g + 8, k);
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) multiply_slab(sums[i], low, high, w[i]);
  }
#pragma unroll
  for (int i = 0; i < kSlabs; ++i) {
    int* at = &partial[warp][g][i * kSlabOutputs + 2 * t];
    *reinterpret_cast<int2*>(at) = make_int2(sums[i][0], sums[i][1]);
    *reinterpret_cast<int2*>(at + 8 * kPitch) = make_int2(sums[i][2], sums[i][3]);
  }
  __syncthreads();
  const int row = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int64_t n = first * kSlabOutputs + column;
  if (row >= layer.m || n >= layer.n) return;
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kFewRowsWarps; ++i) sum += partial[i][row][column];
  finish_sum(layer.epilogue, load_column(layer.epilogue, static_cast<int>(n)), sum, row, static_cast<int>(n));
}

constexpr int kAddThreads = 128;

__global__ void __launch_bounds__(kAddThreads) add_slices_kernel(Linear layer, int slices) {
  const int64_t fours = (layer.n + 3) / 4;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kAddThreads + threadIdx.x, row = i / fours;
  if (row >= layer.m) return;
  const int n = static_cast<int>(i - row * fours) * 4;
  const Columns columns(layer.epilogue, n);
  int sums[4] = {};
  for (int slice = 0; slice < slices; ++slice) {
    const int32_t* from = layer.scratch + (slice * layer.m + row) * layer.n + n;
    if (columns.wide) {
      const int4 part = *reinterpret_cast<const int4*>(from);
      sums[0] += part.x, sums[1] += part.y, sums[2] += part.z, sums[3] += part.w;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[j] += j < columns.count ? from[j] : 0;
    }
  }
  columns.finish(layer.epilogue, make_int4(sums[0], sums[1], sums[2], sums[3]), row);
}

template <bool kAligned>
void launch_few_rows(const Linear& layer, void* stream) {
  constexpr int kWide = 2;  // slabs, where that leaves two blocks for each multiprocessor: x is then read half as often
  const int64_t slabs = slabs_of(layer.n, kSlabOutputs);
  const dim3 block(kFewRowsWarps * kWarp);
  if (slabs >= int64_t{2} * kWide * layer.multiprocessors) {
    OC_LAUNCH((few_rows<kWide, kAligned>), dim3(static_cast<unsigned>((slabs + kWide - 1) / kWide)), block, 0, stream,
              layer);
  } else {
    OC_LAUNCH((few_rows<1, kAligned>), dim3(static_cast<unsigned>(slabs)), block, 0, stream, layer);
  }
}

struct Dense {
  // For large results: 64 x 64 sums to a warp, for which it reads 8 KB of shared memory per 64 multiplications; smaller
  // parts would be bound by shared memory, larger ones spill. 96 KB of stages: what sm_89 has.
  using Tile256 = DenseTile<128, 256, 64, 64, 4, 1>;
  // For results of too few tiles of that size: two blocks share a multiprocessor.
  using Tile128 = DenseTile<128, 128, 64, 32, 3, 2>;
  // For small ones, of which K may be cut in slices, and for any alignment.
  using Tile64 = DenseTile<64, 64, 32, 32, 4, 3>;

  template <bool kAligned>
  static void few_rows(const Linear& layer, void* stream) {
    launch_few_rows<kAligned>(layer, stream);
  }
};

int64_t count_tiles(int64_t m, int n, int rows, int columns) {
  return (m + rows - 1) / rows * ((n + columns - 1) / columns);
}

}  // namespace

LinearPlan plan_linear(int64_t m, int n, int k, int multiprocessors) {
  if (m <= kFewRows) return {LinearPlan::kFewRows, 1};
  // Time in units of a sum on a multiprocessor: rounds of tiles, their size, and how near a tile of that size comes to
  // the rate of the largest one (an estimate from the bytes of shared memory that are read for each multiplication).
  const auto time = [&](int rows, int columns, double rate) {
    const int64_t tiles = count_tiles(m, n, rows, columns);
    return static_cast<double>((tiles + multiprocessors - 1) / multiprocessors) * rows * columns / rate;
  };
  if (rows_are_aligned(k)) {
    const double of_256 = time(128, 256, 1.0), of_128 = time(128, 128, 0.85), of_64 = time(64, 64, 0.6);
    if (of_256 <= of_128 && of_256 <= of_64) return {LinearPlan::kTile256, 1};
    if (of_128 <= of_64) return {LinearPlan::kTile128, 1};
  }
  // Slices of at least 4 steps, so many that there are two blocks for each multiprocessor.
  const int64_t tiles = count_tiles(m, n, 64, 64), most = std::min<int64_t>(16, slabs_of(k, kSlabDepth) / 4);
  const int64_t slices = std::max<int64_t>(1, std::min(most, 2 * int64_t{multiprocessors} / tiles));
  return {LinearPlan::kTile64, static_cast<int>(slices)};
}

size_t linear_scratch_bytes(int64_t m, int n, int k, int multiprocessors) {
  const int slices = plan_linear(m, n, k, multiprocessors).slices;
  return slices > 1 ? static_cast<size_t>(slices * m * n) * sizeof(int32_t) : 0;
}

void add_slices(const Linear& layer, int slices, void* stream) {
  const int64_t threads = layer.m * ((layer.n + 3) / 4);
  const auto blocks = static_cast<unsigned>((threads + kAddThreads - 1) / kAddThreads);
  OC_LAUNCH(add_slices_kernel, dim3(blocks), dim3(kAddThreads), 0, stream, layer, slices);
}

void linear(const Linear& layer, void* stream) { launch_planned<Dense>(layer, stream); }

}  // namespace oc::cuda
