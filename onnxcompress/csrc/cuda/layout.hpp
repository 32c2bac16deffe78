// From floats with channels outermost to bytes with channels innermost, and back. Host code may include this.
#pragma once

#include <cstdint>

namespace oc::cuda {

// Device pointers. pixels: of one image.
struct QuantizeLayout {
  const float* x = nullptr;  // [images][channels][pixels]
  uint8_t* y = nullptr;      // [images][pixels][channels], aligned to 16 bytes: saturate(round(x / scale) + zero)
  int64_t images = 0, pixels = 0, channels = 0;
  float scale = 1;
  int zero = 0;
};
void quantize_channels_last(const QuantizeLayout& arguments, void* stream);

struct DequantizeLayout {
  const uint8_t* x = nullptr;  // [images][pixels][channels], aligned to 16 bytes
  float* y = nullptr;          // [images][channels][pixels]: (x - zero) * scale, or values[x]
  int64_t images = 0, pixels = 0, channels = 0;
  float scale = 1;
  int zero = 0;
  const float* values = nullptr;  // [256], or null
};
void dequantize_channels_first(const DequantizeLayout& arguments, void* stream);

}  // namespace oc::cuda
