// Squeeze-and-excitation: the channels of an image, each scaled by a gate that two small layers compute from the means
// of them all. Host code may include this.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/activation.hpp"
#include "cuda/host_device.hpp"

namespace oc::cuda {

// y = saturate(round(real * (gate + residual) / y_scale) + y_zero), real = (table[x] - x_zero) * x_scale
// gate = clip(alpha * logit + beta, 0, 1), or sigmoid(logit)
// logit = w2 * activation(w1 * mean * w1_scale + b1) * w2_scale + b2, mean: of the pixels of an image
// Single precision: a result may be off by one step. Device pointers, aligned to 16 bytes.
struct SqueezeExcite {
  const uint8_t* x = nullptr;      // [images][pixels][channels]
  const uint8_t* table = nullptr;  // [256], or null
  uint8_t* y = nullptr;            // as x
  int64_t images = 0, pixels = 0;  // pixels < 2^23
  int channels = 0, hidden = 0;
  float x_scale = 1, y_scale = 1;
  int x_zero = 0, y_zero = 0;
  const int8_t* w1 = nullptr;        // [hidden][padded]
  const float *w1_scale = nullptr;   // [hidden]
  const float *b1 = nullptr;         // [hidden]
  const int8_t* w2 = nullptr;        // [hidden][padded]: the weights of a hidden value
  const float *w2_scale = nullptr;   // [padded]
  const float *b2 = nullptr;         // [padded]
  Activation activation = Activation::kRelu;
  bool sigmoid = false;
  float alpha = 1, beta = 0;  // without sigmoid
  float residual = 0;         // 1, or 0
  int64_t parts = 1;          // parts_of_image
  void* scratch = nullptr;    // squeeze_excite_scratch bytes
};
void squeeze_excite(const SqueezeExcite& arguments, void* stream);

// Channels in whole words of four weights; those beyond `channels` are 0.
OC_HOST_DEVICE constexpr int padded_channels(int channels) { return (channels + 3) / 4 * 4; }

size_t squeeze_excite_scratch(const SqueezeExcite& arguments);

}  // namespace oc::cuda
