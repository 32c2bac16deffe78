// Element-wise work on unsigned bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

struct ByteKernels {
  // y[i] = table[x[i]]
  void (*table)(const uint8_t* x, const uint8_t* table, uint8_t* y, size_t count);
};

}  // namespace oc

OC_DECLARE_KERNELS(ByteKernels, bytes)
