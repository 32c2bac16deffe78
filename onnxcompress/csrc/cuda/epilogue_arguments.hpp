// What a layer of u8 activations and s8 weights does to its sums, as plain data. Host code may include this; the
// arithmetic is in epilogue.hpp.
#pragma once

#include <cstdint>

#include "cuda/activation.hpp"

namespace oc::cuda {

// All pointers are device pointers; null: absent. m counts rows of the result (pixels of all images), n its columns.
struct Epilogue {
  int columns = 0;  // N, and so the pitch of y, y_float and the residuals

  int x_zero = 0;
  const int32_t* weight_sums = nullptr;  // [N]: of the weights of an output
  const float* scale = nullptr;          // [N]: x_scale * w_scale
  const float* bias = nullptr;           // [N]
  // Rows of x that are quantized each by its own range: `scale` is then w_scale alone, and x_zero not looked at.
  const float* row_scale = nullptr;    // [M]
  const uint8_t* row_zero = nullptr;   // [M], with row_scale
  Activation activation = Activation::kNone;

  const float* residual_float = nullptr;   // [M, N]; not with residual_after
  const uint8_t* residual_bytes = nullptr;  // [M, N], not both
  float residual_scale = 0;
  int residual_zero = 0;

  uint8_t* y = nullptr;  // [M, N]; without it y_float is written
  float* y_float = nullptr;
  // Pixels of an image, where y_float is [M / pixels, N, pixels] (channels first); 0: it is [M, N].
  int channels_first_pixels = 0;
  float y_inverse = 0;                     // 1 / y_scale
  const float* y_inverse_vector = nullptr;  // [N], in place of y_inverse
  int y_zero = 0;
  const uint8_t* table = nullptr;  // [256]

  bool residual_after = false;  // with y and residual_bytes
  float inner_scale = 0;
  int inner_zero = 0;
  float final_inverse = 0;
  int final_zero = 0;
};

}  // namespace oc::cuda
