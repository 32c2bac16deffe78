// Sum, difference or product of a quantized tensor and another one, or a value per channel. Host code may include this.
//
//   y = table[saturate(round(real / y_scale) + y_zero)]
//   real = (a_table[a] - a_zero) * a_scale  op  (b - b_zero) * b_scale, or b itself where it is floats
// Rounding is half to even; not-a-number becomes 0. The arithmetic is in single precision: a result may be off by one
// step where real / y_scale is within rounding of a tie.
#pragma once

#include <cstdint>

namespace oc::cuda {

enum class Operation : int { kAdd, kSubtract, kMultiply };

// Device pointers aligned to 16 bytes; null: absent.
struct Elementwise {
  Operation operation = Operation::kAdd;
  const uint8_t* a = nullptr;        // [count]
  const uint8_t* a_table = nullptr;  // [256]
  float a_scale = 1;
  int a_zero = 0;
  const uint8_t* b_bytes = nullptr;
  const float* b_floats = nullptr;  // in place of b_bytes
  float b_scale = 1;                // of bytes
  int b_zero = 0;
  uint8_t* y = nullptr;  // [count]
  float y_scale = 1;
  int y_zero = 0;
  const uint8_t* table = nullptr;  // [256]
  int64_t count = 0;

  // Where b has not the shape of a, a is [images][pixels][channels], and b one of these:
  //   [images][channels]                                          image_pixels > 0: pixels of an image
  //   [channels]                                                  neither
  //   [images][height / upsample][width / upsample][channels]     upsample > 1; bytes
  int64_t channels = 0;  // 0: b has the shape of a
  int64_t image_pixels = 0;
  int64_t upsample = 1, width = 0;
};
void elementwise(const Elementwise& arguments, void* stream);

}  // namespace oc::cuda
