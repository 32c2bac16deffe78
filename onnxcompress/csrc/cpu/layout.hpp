// From floats with channels outermost to bytes with channels innermost, and back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

constexpr int kLayoutPixels = 256;  // most pixels of one call; of one channel, any number

struct LayoutKernels {
  // x: bytes [pixels][channels]. y: floats [channels][pixels], `plane` apart: (x - zero_point) * scale.
  void (*dequantize)(const uint8_t* x, int pixels, int channels, float scale, int zero_point, float* y,
                     ptrdiff_t plane);
  // The same, where values[x] are the floats.
  void (*look_up)(const uint8_t* x, int pixels, int channels, const float* values, float* y, ptrdiff_t plane);
  // x: floats [channels][pixels], `plane` apart. y: bytes [pixels][channels]: saturate(round(x / scale) + zero_point).
  void (*quantize)(const float* x, ptrdiff_t plane, int pixels, int channels, float scale, int zero_point, uint8_t* y);
};

}  // namespace oc

OC_DECLARE_KERNELS(LayoutKernels, layout)
