// Depthwise convolutions of u8 images, channels last.
#pragma once

#include <cstdint>

#include "cuda/convolution_pack.hpp"
#include "cuda/epilogue_arguments.hpp"

namespace oc::cuda {

// y [batch, out_height, out_width, channels] of x u8 [batch, height, width, channels]; pixels outside of x are x_zero.
//
// The caller has made sure that
// - weights are what pack_depthwise() made, aligned to 4 bytes; epilogue.columns == channels; epilogue.row_scale and
//   row_zero are null;
// - strides and dilations are positive, pads at least 0, and every size at least 1, but batch, which may be 0;
// - kernel_h * kernel_w is at most 65536, and there are less than 2^31 output pixels and pixels of x in all.
struct Depthwise {
  const int8_t* weights = nullptr;
  const uint8_t* x = nullptr;
  int batch = 0, height = 0, width = 0, channels = 0;
  int out_height = 0, out_width = 0;
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1, top = 0, left = 0;
  Epilogue epilogue;
};

// Enqueues the kernel on the stream, a cudaStream_t.
void depthwise(const Depthwise& depthwise, void* stream);

}  // namespace oc::cuda
