// Floats to unsigned bytes.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/simd.hpp"

namespace oc {

struct QuantizeKernels {
  // x of [rows][k] floats: y = saturate(round(x / scale) + zero_point), not-a-number is 0; each row of y is padded with
  // zeros to `stride`.
  void (*quantize)(const float* x, int rows, int k, float scale, float zero_point, uint8_t* y, ptrdiff_t stride);
  // Every row by its own range, which is extended to contain 0; then through a table, where there is one.
  void (*quantize_rows)(const float* x, int rows, int n, uint8_t* y, float* scale, uint8_t* zero_point,
                        const uint8_t* table);
};

}  // namespace oc

OC_DECLARE_KERNELS(QuantizeKernels, quantizing)
