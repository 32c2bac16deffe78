// Floats to bytes: with constant parameters, and each row by its own range. Host code may include this.
#pragma once

#include <cstdint>

namespace oc::cuda {

// y = saturate(round(x / scale) + zero), ties to even; not-a-number becomes 0. Pointers are device pointers aligned to
// 16 bytes, inverse is 1 / scale: a result may be off by one step where x / scale is within rounding of a tie.
struct Quantize {
  const float* x = nullptr;  // [count]
  uint8_t* y = nullptr;      // [count]
  int64_t count = 0;
  float inverse = 0;
  int zero = 0;
};
void quantize(const Quantize& arguments, void* stream);

// Row by row, with low and high the row's least and greatest value, or 0 where all values lie on one side of it:
//   row_scale = max((high - low) / 255, 1e-12), row_zero = round(-low / row_scale),
//   y = table[saturate(round(value / row_scale) + row_zero)], with value = x * inverse, where that is given.
// The arithmetic is in single precision: y and row_zero may be off by one step, row_scale in its last places.
struct QuantizeRows {
  const float* x = nullptr;        // [m, n]
  const float* inverse = nullptr;  // [n], or null
  const uint8_t* table = nullptr;  // [256], or null
  uint8_t* y = nullptr;            // [m, n]
  float* row_scale = nullptr;      // [m]
  uint8_t* row_zero = nullptr;     // [m]
  int64_t m = 0;
  int n = 0;  // at least 1
};
void quantize_rows(const QuantizeRows& arguments, void* stream);

}  // namespace oc::cuda
