#include "cuda/quantize.hpp"

#include "cuda/epilogue.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256, kWarp = 32;

// Four consecutive values as far as there are `count` of them, zeros after; aligned where whole.
__device__ __forceinline__ float4 load_four(const float* x, int64_t count, bool whole) {
  if (whole) return *reinterpret_cast<const float4*>(x);
  return make_float4(x[0], count > 1 ? x[1] : 0.f, count > 2 ? x[2] : 0.f, count > 3 ? x[3] : 0.f);
}

__device__ __forceinline__ void store_four(uint8_t* y, uint32_t bytes, int64_t count, bool whole) {
  if (whole) {
    *reinterpret_cast<uint32_t*>(y) = bytes;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) y[i] = static_cast<uint8_t>(bytes >> 8 * i);
  }
}

__device__ __forceinline__ uint32_t requantize_four(float4 x, float inverse, int zero) {
  return requantize(x.x, inverse, zero) | static_cast<uint32_t>(requantize(x.y, inverse, zero)) << 8 |
         static_cast<uint32_t>(requantize(x.z, inverse, zero)) << 16 |
         static_cast<uint32_t>(requantize(x.w, inverse, zero)) << 24;
}

__global__ void __launch_bounds__(kThreads) quantize_kernel(Quantize q) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4, left = q.count - first;
  if (left <= 0) return;
  const float4 x = load_four(q.x + first, left, left >= 4);
  store_four(q.y + first, requantize_four(x, q.inverse, q.zero), left, left >= 4);
}

struct Range {
  float low, high;
};

// The range of all threads of a row: a warp, or all warps of the block.
template <bool kWholeBlock>
__device__ __forceinline__ Range range_of_row(Range mine) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    mine.low = fminf(mine.low, __shfl_xor_sync(0xffffffffu, mine.low, lanes));
    mine.high = fmaxf(mine.high, __shfl_xor_sync(0xffffffffu, mine.high, lanes));
  }
  if constexpr (kWholeBlock) {
    __shared__ Range ranges[kThreads / kWarp];
    if (threadIdx.x % kWarp == 0) ranges[threadIdx.x / kWarp] = mine;
    __syncthreads();
#pragma unroll
    for (const Range& other : ranges) mine = {fminf(mine.low, other.low), fmaxf(mine.high, other.high)};
  }
  return mine;
}

__device__ __forceinline__ float4 row_values(const QuantizeRows& q, const float* row, int n, bool whole) {
  float4 x = load_four(row + n, q.n - n, whole);
  if (q.inverse) {
    const float4 inverse = load_four(q.inverse + n, q.n - n, whole);
    x = make_float4(x.x * inverse.x, x.y * inverse.y, x.z * inverse.z, x.w * inverse.w);
  }
  return x;
}

// A row to a warp, or long ones to a block. The row is read twice, the second time from cache.
template <bool kWholeBlock>
__global__ void __launch_bounds__(kThreads) quantize_rows_kernel(QuantizeRows q) {
  constexpr int kOfRow = kWholeBlock ? kThreads : kWarp, kRows = kThreads / kOfRow;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kOfRow;
  if (row >= q.m) return;
  const float* x = q.x + row * q.n;
  const int first = threadIdx.x % kOfRow * 4;
  const bool whole = q.n % 4 == 0;
  Range mine = {0.f, 0.f};
  for (int n = first; n < q.n; n += kOfRow * 4) {
    const float4 v = row_values(q, x, n, whole);
    mine.low = fminf(mine.low, fminf(fminf(v.x, v.y), fminf(v.z, v.w)));
    mine.high = fmaxf(mine.high, fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)));
  }
  const Range range = range_of_row<kWholeBlock>(mine);
  constexpr float kLeastScale = 1e-12f;
  const float scale = fmaxf((range.high - range.low) / 255.f, kLeastScale), inverse = 1.f / scale;
  const int zero = requantize(-range.low / scale, 1.f, 0);
  if (first == 0) q.row_scale[row] = scale, q.row_zero[row] = static_cast<uint8_t>(zero);
  for (int n = first; n < q.n; n += kOfRow * 4) {
    uint32_t bytes = requantize_four(row_values(q, x, n, whole), inverse, zero);
    if (q.table) {
      bytes = q.table[bytes & 255] | static_cast<uint32_t>(q.table[bytes >> 8 & 255]) << 8 |
              static_cast<uint32_t>(q.table[bytes >> 16 & 255]) << 16 |
              static_cast<uint32_t>(q.table[bytes >> 24]) << 24;
    }
    store_four(q.y + row * q.n + n, bytes, q.n - n, whole);
  }
}

unsigned blocks_of(int64_t items, int64_t of_block) { return static_cast<unsigned>((items + of_block - 1) / of_block); }

}  // namespace

void quantize(const Quantize& arguments, void* stream) {
  if (arguments.count == 0) return;
  OC_LAUNCH(quantize_kernel, dim3(blocks_of(arguments.count, kThreads * 4)), dim3(kThreads), 0, stream, arguments);
}

void quantize_rows(const QuantizeRows& arguments, void* stream) {
  if (arguments.m == 0) return;
  constexpr int kLong = 1024;
  if (arguments.n > kLong) {
    OC_LAUNCH((quantize_rows_kernel<true>), dim3(blocks_of(arguments.m, 1)), dim3(kThreads), 0, stream, arguments);
  } else {
    OC_LAUNCH((quantize_rows_kernel<false>), dim3(blocks_of(arguments.m, kThreads / kWarp)), dim3(kThreads), 0, stream,
              arguments);
  }
}

}  // namespace oc::cuda
