// Pixels to other places.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

struct ConcatKernels {
  // `pixels` pixels of `channels` bytes to y, each `repeat` times, `stride` bytes apart there; through the table where
  // there is one.
  void (*place)(const uint8_t* x, int pixels, int channels, int repeat, uint8_t* y, ptrdiff_t stride,
                const uint8_t* table);
};

}  // namespace oc

OC_DECLARE_KERNELS(ConcatKernels, concat)
