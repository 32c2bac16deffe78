// The entry of a network: float planes to bytes, channels last.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/simd.hpp"

namespace oc {

struct StemKernels {
  // `width` pixels of `channels` planes that are `plane` floats apart: saturate(round(x / scale) + zero_point), pixels
  // `stride` bytes apart. stride >= channels; 3 channels at a stride of 4, and 1 of 1, are fast. Bytes beyond the
  // channels become 0.
  void (*quantize)(const float* x, ptrdiff_t plane, int channels, int width, float scale, float zero_point, uint8_t* y,
                   ptrdiff_t stride);
};

}  // namespace oc

OC_DECLARE_KERNELS(StemKernels, stem)
