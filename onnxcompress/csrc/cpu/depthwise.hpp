// Depthwise convolutions on unsigned bytes in NHWC order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

struct DepthwiseWindow {
  int kh, kw, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
};

// One filter a channel. initial (-x_zero * sum of the weights), scale and offset are padded with zeros to multiples of
// 16. `bounded`: no result before saturation comes near the limits of int32.
struct DepthwiseFilter {
  DepthwiseWindow window;
  int channels;
  uint8_t x_zero;
  bool bounded;
  const int8_t* packed;
  const int32_t* initial;
  const float *scale, *offset;
  const uint8_t* table;
};

// Rows [row_begin, row_end) of the output of one image [height][width][channels].
struct DepthwiseImage {
  const uint8_t* x;
  int height, width, out_width, row_begin, row_end;
  uint8_t* scratch;
};

struct DepthwiseKernels {
  // Rows of the output that are made together.
  int (*row_step)(const DepthwiseFilter& filter);
  // Bytes of packed weights, and of scratch memory for a run.
  size_t (*packed_size)(const DepthwiseFilter& filter);
  size_t (*scratch)(const DepthwiseFilter& filter);
  // w is [channels][kh][kw].
  void (*pack)(const DepthwiseFilter& filter, const int8_t* w, int8_t* packed);
  // y is the whole image's output.
  void (*to_bytes)(const DepthwiseFilter& filter, const DepthwiseImage& image, uint8_t* y, const uint8_t* residual,
                   float residual_scale);
  void (*to_floats)(const DepthwiseFilter& filter, const DepthwiseImage& image, float* y);
};

}  // namespace oc

OC_DECLARE_KERNELS(DepthwiseKernels, depthwise)
