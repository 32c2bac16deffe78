// What QLinear4 needs around the kernels of weight_only.hpp: its activations are bytes, and so may its results be.
#pragma once

#include <cstdint>

#include "cuda/activation.hpp"

namespace oc::cuda {

// y = x - zero point, which halves hold exactly; blocks of x are padded with zeros. Device pointers.
struct Centre {
  const uint8_t* x = nullptr;         // [m, blocks, block]
  void* y = nullptr;                  // half [m, blocks, padded]
  int64_t m = 0;
  int blocks = 1, block = 1, padded = 1;  // padded: at least block
  int zero = 0;
  const uint8_t* row_zero = nullptr;  // [m], in place of zero
};
void centre(const Centre& arguments, void* stream);

// real = activation(sum * x_scale + bias) + residual; y = saturate(round(real * y_inverse) + y_zero), or y_float = real.
// Device pointers; null: absent.
struct FinishFloats {
  const float* sums = nullptr;  // [m, n]
  int64_t m = 0;
  int n = 1;
  float x_scale = 1;
  const float* row_scale = nullptr;  // [m], in place of x_scale
  const float* bias = nullptr;       // [n]
  Activation activation = Activation::kNone;
  const float* residual = nullptr;  // [m, n]
  const float* y_inverse = nullptr;  // [n], with y
  int y_zero = 0;
  uint8_t* y = nullptr;
  float* y_float = nullptr;
};
void finish_floats(const FinishFloats& arguments, void* stream);

}  // namespace oc::cuda
