// Bound by memory: a thread makes one value, neighbours in a warp neighbouring outputs of a pixel, so that products are
// read and results written in whole sectors. Every product is read once.
#include "cuda/transposed.hpp"

#include <algorithm>

#include "cuda/device.hpp"
#include "cuda/epilogue.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256;

// The sum of the products that fall on pixel (row, column) of an image.
__device__ __forceinline__ float sum_at(const GatherTransposed& g, int64_t image, int64_t row, int64_t column, int n) {
  float sum = 0;
  const int64_t down = row + g.top, right = column + g.left;
  for (int64_t ky = down % g.stride_y; ky < g.kernel_h && ky <= down; ky += g.stride_y) {
    const int64_t from_row = (down - ky) / g.stride_y;
    if (from_row >= g.height) continue;
    for (int64_t kx = right % g.stride_x; kx < g.kernel_w && kx <= right; kx += g.stride_x) {
      const int64_t from_column = (right - kx) / g.stride_x;
      if (from_column >= g.width) continue;
      const int64_t pixel = (image * g.height + from_row) * g.width + from_column;
      sum += g.products[((pixel * g.kernel_h + ky) * g.kernel_w + kx) * g.outputs + n];
    }
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads) gather_kernel(const __grid_constant__ GatherTransposed g) {
  const int64_t pixels = g.out_height * g.out_width, count = g.images * pixels * g.outputs;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t place = i / g.outputs, image = place / pixels, pixel = place - image * pixels;
    const int n = static_cast<int>(i - place * g.outputs);
    const int64_t row = pixel / g.out_width;
    float value = sum_at(g, image, row, pixel - row * g.out_width, n);
    if (g.bias) value += g.bias[n];
    if (g.y) {
      const uint8_t byte = requantize(value, g.inverse, g.zero);
      g.y[i] = g.table ? g.table[byte] : byte;
    } else {
      g.y_float[g.planes ? (image * g.outputs + n) * pixels + pixel : i] = value;
    }
  }
}

}  // namespace

void gather_transposed(const GatherTransposed& g, void* stream) {
  const int64_t count = g.images * g.out_height * g.out_width * g.outputs;
  if (count == 0) return;
  constexpr int64_t kMostBlocks = 1 << 20;
  const auto blocks = static_cast<unsigned>(std::min((count + kThreads - 1) / kThreads, kMostBlocks));
  OC_LAUNCH(gather_kernel, dim3(blocks), dim3(kThreads), 0, stream, g);
}

}  // namespace oc::cuda
