// Convolutions of u8 images, channels last, on tensor cores (1x1, k x k, grouped). Depthwise ones: depthwise.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/convolution_pack.hpp"
#include "cuda/epilogue_arguments.hpp"

namespace oc::cuda {

// y [batch, out_height, out_width, N] of x u8 [batch, height, width, channels]; pixels outside of x are x_zero.
//
// The caller has made sure that
// - plan, weights and taps are what pack_convolution() made, channels == plan.groups * plan.channels, and
//   epilogue.columns == plan.groups * plan.outputs; epilogue.row_scale, row_zero and residual_float are null;
// - x and weights are aligned to 16 bytes, y and residual_bytes to 1;
// - strides are positive, pads at least 0, every size at least 1, but batch, which may be 0, and plan.groups at most
//   65535;
// - an image of x has less than 2^31 bytes, and there are less than 2^31 - 2^16 output pixels in all.
struct Convolution {
  ConvolutionPlan plan;
  const int8_t* weights = nullptr;
  const ConvolutionTap* taps = nullptr;
  const uint8_t* x = nullptr;
  int batch = 0, height = 0, width = 0, channels = 0;
  int out_height = 0, out_width = 0;
  int stride_y = 1, stride_x = 1, top = 0, left = 0;
  Epilogue epilogue;
  int multiprocessors = 1;     // of the device: how many blocks it takes to fill it
  int32_t* partial = nullptr;  // scratch of convolution_scratch() bytes, aligned to 4; may be null for 0 bytes
};

// Bytes of scratch: where there are too few output pixels to fill the device, the depth is split between blocks.
size_t convolution_scratch(const Convolution& convolution);

// Enqueues the kernels on the stream, a cudaStream_t.
void convolution(const Convolution& convolution, void* stream);

}  // namespace oc::cuda
