// Means of tokens in two steps: weighted sums of parts of the tokens, then those added, divided and normalized.
#include "cuda/mean_pool.hpp"

#include <algorithm>

#include "cuda/reduce.hpp"
#include "cuda/together.hpp"

namespace oc::cuda {

namespace {

// A block of the first step has 128 columns, four of them, 16 bytes, a lane; its warps take tokens in turn.
constexpr int kThreads = 256, kWarp = 32, kWarps = kThreads / kWarp, kWidth = 4, kColumns = kWarp * kWidth;
constexpr int64_t kLeastTokens = 4 * kWarps;  // of a part

struct Plan {
  int64_t groups;  // of columns
  int64_t parts;   // of tokens
  int64_t tokens;  // of a part
};

// Parts only as many as occupy the device.
Plan plan_of(const MeanPool& p) {
  constexpr int64_t kBlocksOfMultiprocessor = 4;
  const int64_t groups = (p.channels + kColumns - 1) / kColumns, blocks = std::max<int64_t>(p.batch * groups, 1);
  const int64_t wanted = (p.multiprocessors * kBlocksOfMultiprocessor + blocks - 1) / blocks;
  const int64_t possible = std::max<int64_t>(p.length / kLeastTokens, 1);
  const int64_t most = std::min(wanted, possible), tokens = std::max<int64_t>((p.length + most - 1) / most, 1);
  return {groups, std::max<int64_t>((p.length + tokens - 1) / tokens, 1), tokens};
}

__device__ __forceinline__ float weight_of(const MeanPool& p, int64_t at) {
  switch (p.weight_type) {
    case WeightType::kInt64:
      return static_cast<float>(static_cast<const int64_t*>(p.weights)[at]);
    case WeightType::kInt32:
      return static_cast<float>(static_cast<const int32_t*>(p.weights)[at]);
    case WeightType::kBool:
      return static_cast<const uint8_t*>(p.weights)[at] != 0 ? 1.f : 0.f;
    default:
      return static_cast<const float*>(p.weights)[at];
  }
}

// scratch [batch][parts][channels]: weighted sums.
__global__ void __launch_bounds__(kThreads) sum_parts(MeanPool p, Plan plan) {
  __shared__ float of_warps[kWarps][kColumns];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t blocks = p.batch * plan.parts * plan.groups;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t row = block / plan.groups, batch = row / plan.parts;
    const int first_column = static_cast<int>(block - row * plan.groups) * kColumns;
    const int column = first_column + lane * kWidth;
    const int64_t first = (row - batch * plan.parts) * plan.tokens, end = min(first + plan.tokens, p.length);
    float sums[kWidth] = {};
    if (column < p.channels) {
#pragma unroll 4
      for (int64_t token = first + warp; token < end; token += kWarps) {
        const int64_t at = batch * p.length + token;
        const float weight = weight_of(p, at);
        float values[kWidth];
        load_together(p.x + at * p.channels + column, values, p.channels - column);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sums[i] += values[i] * weight;
      }
    }
    __syncthreads();  // the last block's sums have been read
    for (int i = 0; i < kWidth; ++i) of_warps[warp][lane * kWidth + i] = sums[i];
    __syncthreads();
    const int mine = static_cast<int>(threadIdx.x);
    if (mine < kColumns && first_column + mine < p.channels) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kWarps; ++i) sum += of_warps[i][mine];
      p.scratch[row * p.channels + first_column + mine] = sum;
    }
  }
}

// A block for each of the batch.
__global__ void __launch_bounds__(kThreads) finish(MeanPool p, int64_t parts) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t batch = blockIdx.x; batch < p.batch; batch += gridDim.x) {
    float count = 0;
    for (int64_t token = thread; token < p.length; token += kThreads) count += weight_of(p, batch * p.length + token);
    count = reduce_block<kThreads>(count, Sum());
    const float divisor = fmaxf(count, p.minimum_count);
    const float* sums = p.scratch + batch * parts * p.channels;
    float* y = p.y + batch * p.channels;
    float squares = 0;
    for (int column = thread; column < p.channels; column += kThreads) {
      float sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums[part * p.channels + column];
      const float mean = sum / divisor;
      y[column] = mean, squares += mean * mean;
    }
    if (!p.normalizes) continue;
    const float length = fmaxf(sqrtf(reduce_block<kThreads>(squares, Sum())), p.norm_epsilon);
    for (int column = thread; column < p.channels; column += kThreads) y[column] /= length;
  }
}

}  // namespace

size_t mean_pool_scratch(const MeanPool& arguments) {
  return static_cast<size_t>(arguments.batch * plan_of(arguments).parts) * static_cast<size_t>(arguments.channels);
}

void mean_pool(const MeanPool& arguments, void* stream) {
  if (arguments.batch <= 0 || arguments.channels <= 0) return;
  const Plan plan = plan_of(arguments);
  const int64_t most = int64_t{arguments.multiprocessors} * 32;  // the rest by the same blocks
  const auto blocks = static_cast<unsigned>(std::min(arguments.batch * plan.parts * plan.groups, most));
  OC_LAUNCH(sum_parts, dim3(blocks), dim3(kThreads), 0, stream, arguments, plan);
  const auto rows = static_cast<unsigned>(std::min(arguments.batch, most));
  OC_LAUNCH(finish, dim3(rows), dim3(kThreads), 0, stream, arguments, plan.parts);
}

}  // namespace oc::cuda
