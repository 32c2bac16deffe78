// A thread makes 4 channels of 4 neighbouring pixels; lanes run along the channels, so that a warp reads and writes 128
// bytes in a row.
//
// One dp4a with a weight alone in its byte multiplies one channel of a word of x: no byte is unpacked, and the four
// words of a tap serve four pixels. dp4a has signed bytes on both sides, so it gets x - 128. A row of the window is in
// registers while its taps are done (3x3: 6 words for 12 taps of pixels); rows above and below come from the first-
// level cache, whose loads are a quarter of the multiplications' time, so that staging tiles in shared memory would
// only add barriers.
#include <algorithm>

#include "cuda/depthwise.hpp"
#include "cuda/device.hpp"
#include "cuda/epilogue_store.hpp"

namespace oc::cuda {
namespace {

constexpr int kThreads = 128, kPixels = 4;

// Four channels of a pixel less 128, those beyond `count` anything. kWide: as one word.
template <bool kWide>
__device__ __forceinline__ uint32_t load_channels(const uint8_t* from, int count) {
  constexpr uint32_t kToSigned = 0x80808080u;
  if constexpr (kWide) return *reinterpret_cast<const uint32_t*>(from) ^ kToSigned;
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) word |= static_cast<uint32_t>(from[i]) << 8 * i;
  }
  return word ^ kToSigned;
}

struct TapWeights {
  int byte[4];  // the weight of channel i in byte i, zeros in the others
};

__device__ __forceinline__ TapWeights load_tap(const int8_t* weights) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(weights);
  TapWeights tap;
#pragma unroll
  for (int i = 0; i < 4; ++i) tap.byte[i] = static_cast<int>(word & 255u << 8 * i);
  return tap;
}

__device__ __forceinline__ void multiply_tap(uint32_t x, const TapWeights& tap, int (&sums)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] = __dp4a(static_cast<int>(x), tap.byte[i], sums[i]);
}

// What a thread reads: a row of the image, seen from the window of its first pixel.
template <bool kWide>
struct Row {
  const uint8_t* pixels;  // its pixel 0, at the thread's channels
  int left, width, channels, count;
  bool inside;
  uint32_t zeros;

  __device__ __forceinline__ uint32_t operator[](int x) const {
    x += left;
    const bool there = inside && static_cast<unsigned>(x) < static_cast<unsigned>(width);
    return there ? load_channels<kWide>(pixels + int64_t{x} * channels, count) : zeros;
  }
};

// Adds a row of the window to the sums. kKernel, kStride: what is known of it, without dilation; 0: nothing.
template <int kKernel, int kStride, bool kWide>
__device__ __forceinline__ void multiply_row(const Depthwise& d, const Row<kWide>& row, const int8_t* weights,
                                             int pitch, int (&sums)[kPixels][4]) {
  if constexpr (kKernel > 0) {
    constexpr int kWords = (kPixels - 1) * kStride + kKernel;
    uint32_t words[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = row[i];
#pragma unroll
    for (int kx = 0; kx < kKernel; ++kx) {
      const TapWeights tap = load_tap(weights + kx * pitch);
#pragma unroll
      for (int i = 0; i < kPixels; ++i) multiply_tap(words[i * kStride + kx], tap, sums[i]);
    }
  } else {
    for (int kx = 0; kx < d.kernel_w; ++kx) {
      const TapWeights tap = load_tap(weights + int64_t{kx} * pitch);
#pragma unroll
      for (int i = 0; i < kPixels; ++i) multiply_tap(row[i * d.stride_x + kx * d.dilation_x], tap, sums[i]);
    }
  }
}

// Grid: (fours of channels, then of pixels of a row; rows of all images).
template <int kKernel, int kStride, bool kWide>
__global__ void __launch_bounds__(kThreads, 4)
    depthwise_kernel(const __grid_constant__ Depthwise d, bool wide) {
  // A thread's sums, for it alone: indexed by a loop, they could not be in registers.
  __shared__ int4 all_sums[kPixels][kThreads];
  const int pitch = depthwise_pitch(d.channels), fours = pitch / 4;
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  const int channel = static_cast<int>(i % fours) * 4, first = static_cast<int>(i / fours) * kPixels;
  if (first >= d.out_width) return;
  const int count = min(4, d.channels - channel), rows = d.batch * d.out_height;
  const uint32_t zeros = static_cast<uint32_t>(d.epilogue.x_zero ^ 128) * 0x01010101u;

  for (int out_row = blockIdx.y; out_row < rows; out_row += gridDim.y) {
    const int image = out_row / d.out_height, top = (out_row - image * d.out_height) * d.stride_y - d.top;
    int sums[kPixels][4] = {};
    const int kernel_h = kKernel > 0 ? kKernel : d.kernel_h;
#pragma unroll(kKernel == 3 ? 3 : 1)
    for (int ky = 0; ky < kernel_h; ++ky) {
      const int y = top + ky * d.dilation_y;
      const bool inside = static_cast<unsigned>(y) < static_cast<unsigned>(d.height);
      const int64_t first_pixel = (int64_t{image} * d.height + (inside ? y : 0)) * d.width;
      const Row<kWide> row{d.x + first_pixel * d.channels + channel, first * d.stride_x - d.left,
                           d.width, d.channels, count, inside, zeros};
      const int taps = ky * (kKernel > 0 ? kKernel : d.kernel_w);
      multiply_row<kKernel, kStride>(d, row, d.weights + int64_t{taps} * pitch + channel, pitch, sums);
    }
#pragma unroll
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const int(&s)[4] = sums[pixel];
      all_sums[pixel][threadIdx.x] = make_int4(s[0], s[1], s[2], s[3]);
    }
    const FourColumns four = load_four(d.epilogue, channel, count);
#pragma unroll 1
    for (int pixel = 0; pixel < min(kPixels, d.out_width - first); ++pixel) {
      int4 s = all_sums[pixel][threadIdx.x];
      s.x += 128 * four.column[0].weight_sum, s.y += 128 * four.column[1].weight_sum;
      s.z += 128 * four.column[2].weight_sum, s.w += 128 * four.column[3].weight_sum;
      finish_four(d.epilogue, four, s, int64_t{out_row} * d.out_width + first + pixel, channel, count, wide);
    }
  }
}

}  // namespace

void depthwise(const Depthwise& d, void* stream) {
  const int64_t rows = int64_t{d.batch} * d.out_height;
  if (rows == 0) return;
  constexpr int64_t kMostRows = 65535;
  const int64_t across = int64_t{(d.out_width + kPixels - 1) / kPixels} * (depthwise_pitch(d.channels) / 4);
  const dim3 grid(static_cast<unsigned>((across + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min(rows, kMostRows)));
  const bool words = d.channels % 4 == 0 && reinterpret_cast<uintptr_t>(d.x) % 4 == 0;
  const bool wide = d.channels % 4 == 0 && four_at_once(d.epilogue);
  const bool square = d.kernel_h == d.kernel_w && d.dilation_y == 1 && d.dilation_x == 1;
  const int kernel = words && square ? d.kernel_h : 0;
  if (kernel == 3 && d.stride_x == 1) {
    OC_LAUNCH((depthwise_kernel<3, 1, true>), grid, dim3(kThreads), 0, stream, d, wide);
  } else if (kernel == 3 && d.stride_x == 2) {
    OC_LAUNCH((depthwise_kernel<3, 2, true>), grid, dim3(kThreads), 0, stream, d, wide);
  } else if (kernel == 5 && d.stride_x == 1) {
    OC_LAUNCH((depthwise_kernel<5, 1, true>), grid, dim3(kThreads), 0, stream, d, wide);
  } else if (kernel == 5 && d.stride_x == 2) {
    OC_LAUNCH((depthwise_kernel<5, 2, true>), grid, dim3(kThreads), 0, stream, d, wide);
  } else if (words) {
    OC_LAUNCH((depthwise_kernel<0, 0, true>), grid, dim3(kThreads), 0, stream, d, wide);
  } else {
    OC_LAUNCH((depthwise_kernel<0, 0, false>), grid, dim3(kThreads), 0, stream, d, wide);
  }
}

}  // namespace oc::cuda
