// Normalization over the last axis: LayerNorm and RMSNorm.
//
//   s = x + residual                                      written as `sum`
//   y = (s - mean) / sqrt(variance + epsilon) * gamma + beta            centred: LayerNorm
//   y = s / sqrt(mean(s^2) + epsilon) * gamma + beta                    not: RMSNorm
//   q = saturate(round(y * q_inverse) + q_zero)                         or, dynamic:
//   q = y * q_inverse by the row's own range, extended to contain 0 (onnxcompress/ops/row_quantization.py)
//
// The arithmetic is single precision in two passes, the second of which also corrects the mean: y is as in double
// precision to 1e-6 of max(1, |y|), however large the mean is, but for the rounding of s. q may differ by one step.
#pragma once

#include <cstdint>

namespace oc::cuda {

// Device pointers; null: absent. `sum` is of the type of x, y of its own.
struct Norm {
  int64_t rows = 0;
  int columns = 0;
  bool half_input = false, half_output = false;
  const void *x = nullptr, *residual = nullptr;  // [rows][columns]
  bool centred = true;
  float epsilon = 0;
  const float *gamma = nullptr, *beta = nullptr;  // [columns]; null: 1 and 0
  void *sum = nullptr, *y = nullptr;
  uint8_t* q = nullptr;
  float q_inverse = 1;                        // 1 / scale of q
  const float* q_inverse_vector = nullptr;  // [columns], in place of q_inverse
  int q_zero = 0;
  // With dynamic: the results' own parameters, q = round(y * q_inverse / row_scale) + row_zero.
  bool dynamic = false;
  float* row_scale = nullptr;   // [rows]
  uint8_t* row_zero = nullptr;  // [rows]
};

// Nothing is done where there are no rows. Preconditions: columns >= 1; arrays aligned to 16 bytes (rows need not be:
// they are then read slower); no output overlaps an input; epsilon, or the variance of every row, is positive.
void norm(const Norm& arguments, void* stream);

}  // namespace oc::cuda
