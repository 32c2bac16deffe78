// The end of a transposed convolution, whose products linear() made: what falls on a pixel of the result is added up.
#pragma once

#include <cstdint>

namespace oc::cuda {

// Device pointers; null: absent. Nothing is done where the result is empty.
struct GatherTransposed {
  // [images, height, width, kernel_h, kernel_w, outputs], in real units.
  const float* products = nullptr;
  int64_t images = 0, height = 0, width = 0, out_height = 0, out_width = 0;
  int outputs = 0, kernel_h = 1, kernel_w = 1;
  int64_t stride_y = 1, stride_x = 1, top = 0, left = 0;
  const float* bias = nullptr;  // [outputs]

  // y u8 [images, out_height, out_width, outputs] = table[saturate(round(sum * inverse) + zero)], or
  uint8_t* y = nullptr;
  float inverse = 1;
  int zero = 0;
  const uint8_t* table = nullptr;  // [256]
  // y_float, like y or, with `planes`, [images, outputs, out_height, out_width].
  float* y_float = nullptr;
  bool planes = false;
};

void gather_transposed(const GatherTransposed& arguments, void* stream);

}  // namespace oc::cuda
