// u8 x 2:4 sparse s8 matrix multiplication on tensor cores. The instruction's sparse factor is the one whose rows
// become the rows of its result: here those are outputs, and its columns are rows of x.
#include "cuda/sparse24.hpp"

#include "cuda/linear_tiles.hpp"
#include "cuda/sparse24_pack.hpp"

namespace oc::cuda {

namespace {

// Stored weights and metadata of 16 outputs by 64 of K, as a lane has them.
struct SparseWeights {
  uint4 values;
  uint32_t metadata;
};

// Packed weights of one block for this lane; `from`: shared or global memory.
__device__ __forceinline__ SparseWeights load_weights(const uint8_t* from, int lane) {
  return {*reinterpret_cast<const uint4*>(from + lane * 16),
          *reinterpret_cast<const uint32_t*>(from + kSparseValueBytes + lane * 4)};
}

// x: the lane's 16 bytes of row g of 8.
__device__ __forceinline__ void multiply_block(int (&sums)[4], const SparseWeights& w, const uint4& x) {
  const uint32_t values[4] = {w.values.x, w.values.y, w.values.z, w.values.w}, rows[4] = {x.x, x.y, x.z, x.w};
  mma_sparse_s8u8(sums, values, rows, w.metadata);
}

template <int kRows, int kColumns, int kRowsOfWarp, int kColumnsOfWarp, int kStageCount, int kBlocksOfSm>
struct SparseTile : TileShape<kRows, kColumns, kRowsOfWarp, kColumnsOfWarp> {
  using Shape = TileShape<kRows, kColumns, kRowsOfWarp, kColumnsOfWarp>;
  static constexpr int kStages = kStageCount, kBlocks = kBlocksOfSm;
  static constexpr int kWeightBytes = kColumns / kSparseOutputs * kSparseBytes;
  static constexpr int kPitch = kColumnsOfWarp + 4;  // every second row, for the four t, starts 8 banks further
  using Sums = int[kColumnsOfWarp / 16][kRowsOfWarp / 8][4];

  __device__ static __forceinline__ void stage_weights(const Linear& layer, int column, int step, uint8_t* shared) {
    const int64_t deep = slabs_of(layer.k, kSlabDepth), outputs = slabs_of(layer.n, kSparseOutputs);
    constexpr int kChunks = kWeightBytes / 16, kChunksOfBlock = kSparseBytes / 16;
#pragma unroll
    for (int first = 0; first < kChunks; first += Shape::kThreads) {
      const int chunk = first + static_cast<int>(threadIdx.x);
      if (kChunks % Shape::kThreads != 0 && chunk >= kChunks) break;
      const int64_t output = column / kSparseOutputs + chunk / kChunksOfBlock;
      // Beyond the matrix the last block again: its results are not stored, but its metadata must be valid.
      const int64_t block = min(output, outputs - 1) * deep + step;
      copy_async16(shared + chunk * 16, layer.weights + block * kSparseBytes + chunk % kChunksOfBlock * 16, true);
    }
  }

  __device__ static __forceinline__ void multiply(Sums& sums, const uint8_t* x, const uint8_t* weights) {
    const int lane = threadIdx.x % kWarp;
    SparseWeights w[kColumnsOfWarp / 16];
#pragma unroll
    for (int i = 0; i < kColumnsOfWarp / 16; ++i) w[i] = load_weights(weights + i * kSparseBytes, lane);
#pragma unroll
    for (int j = 0; j < kRowsOfWarp / 8; ++j) {
      const uint4 rows = reinterpret_cast<const uint4*>(x)[j * kWarp + lane];
#pragma unroll
      for (int i = 0; i < kColumnsOfWarp / 16; ++i) multiply_block(sums[i][j], w[i], rows);
    }
  }

  __device__ static __forceinline__ void put(const Sums& sums, int i, int* shared) {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kColumnsOfWarp / 16; ++j) {
        int* at = shared + (half * 8 + 2 * t) * kPitch + j * 16 + g;
        const int(&four)[4] = sums[j][2 * i + half];
        at[0] = four[0], at[kPitch] = four[1], at[8] = four[2], at[kPitch + 8] = four[3];
      }
    }
  }
};

// Up to 8 * kEights rows: a block has 16 outputs, and its 8 warps the steps of K in turn, past shared memory; the sums
// of the warps are added at the end.
constexpr int kFewRowsWarps = 8;

template <int kEights, bool kAligned>
__global__ void __launch_bounds__(kFewRowsWarps* kWarp) few_rows(Linear layer) {
  constexpr int kPitch = kSparseOutputs + 4;
  __shared__ int partial[kFewRowsWarps][kEights * 8][kPitch];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int64_t deep = slabs_of(layer.k, kSlabDepth);
  const auto* weights = reinterpret_cast<const uint8_t*>(layer.weights) + blockIdx.x * deep * kSparseBytes;
  int sums[kEights][4] = {};
#pragma unroll 4
  for (int step = warp; step < deep; step += kFewRowsWarps) {
    const SparseWeights w = load_weights(weights + static_cast<int64_t>(step) * kSparseBytes, lane);
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      multiply_block(sums[i], w, load16<kAligned>(layer, i * 8 + g, step * kSlabDepth + t * 16));
    }
  }
#pragma unroll
  for (int i = 0; i < kEights; ++i) {
    int* at = &partial[warp][i * 8 + 2 * t][g];
    at[0] = sums[i][0], at[kPitch] = sums[i][1], at[8] = sums[i][2], at[kPitch + 8] = sums[i][3];
  }
  __syncthreads();
  const int row = threadIdx.x / kSparseOutputs, column = threadIdx.x % kSparseOutputs;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kSparseOutputs + column;
  if (row >= min(layer.m, static_cast<int64_t>(kEights * 8)) || n >= layer.n) return;
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kFewRowsWarps; ++i) sum += partial[i][row][column];
  finish_sum(layer.epilogue, load_column(layer.epilogue, static_cast<int>(n)), sum, row, static_cast<int>(n));
}

template <bool kAligned>
void launch_few_rows(const Linear& layer, void* stream) {
  const dim3 grid(static_cast<unsigned>(slabs_of(layer.n, kSparseOutputs))), block(kFewRowsWarps * kWarp);
  if (layer.m <= 8) {
    OC_LAUNCH((few_rows<1, kAligned>), grid, block, 0, stream, layer);
  } else {
    OC_LAUNCH((few_rows<2, kAligned>), grid, block, 0, stream, layer);
  }
}

struct Sparse {
  // As in linear.cu; a stage has half the weights and an eighth of that in metadata.
  using Tile256 = SparseTile<128, 256, 64, 64, 4, 1>;
  using Tile128 = SparseTile<128, 128, 64, 32, 3, 2>;
  using Tile64 = SparseTile<64, 64, 32, 32, 4, 3>;

  template <bool kAligned>
  static void few_rows(const Linear& layer, void* stream) {
    launch_few_rows<kAligned>(layer, stream);
  }
};

}  // namespace

void sparse24(const Linear& layer, void* stream) { launch_planned<Sparse>(layer, stream); }

}  // namespace oc::cuda
