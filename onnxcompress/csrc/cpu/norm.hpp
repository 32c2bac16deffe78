// Layer normalization of rows of floats.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/simd.hpp"

namespace oc {

// y = (s - mean(s)) / sqrt(variance(s) + epsilon) * gamma + beta over each row s = x + residual, and bytes of it:
//
//   q = saturate(round(y * inverse + zero_point)), or with row_scale
//   q = the bytes of y * inverse by each row's own range (a null inverse is 1)
//
// All but gamma, beta and x may be null. Vectors over columns are padded to whole vectors of lanes.
struct LayerNorm {
  int c = 0;
  const float *gamma = nullptr, *beta = nullptr, *inverse = nullptr;
  float epsilon = 0, zero_point = 0;
  const float *x = nullptr, *residual = nullptr;
  float *sum = nullptr, *y = nullptr;
  uint8_t* q = nullptr;
  float* row_scale = nullptr;
  uint8_t* row_zero_point = nullptr;
};

struct NormKernels {
  // `rows` rows, at least one. scratch: 4 * c floats.
  void (*layer_norm)(const LayerNorm& p, int rows, float* scratch);
};

}  // namespace oc

OC_DECLARE_KERNELS(NormKernels, norm)
