#include "ops/depthwise.hpp"

#include <cmath>
#include <cstring>

#include "ort/op.hpp"

namespace oc {

namespace {

constexpr int kScratchSlot = 7;
constexpr int kMostTaps = 1 << 16;  // 2^16 products of 255 and 128 stay below 2^31

}  // namespace

Depthwise::Depthwise(const int8_t* w, int channels, const DepthwiseWindow& window, const float* scale,
                     const float* offset, uint8_t x_zero, const uint8_t* table)
    : kernels_(&depthwise()) {
  require(channels > 0, "a depthwise convolution must have channels");
  require(window.kh > 0 && window.kw > 0 && window.kh <= kMostTaps / window.kw, "the kernel's size is out of range");
  require(window.stride_h > 0 && window.stride_w > 0 && window.dilation_h > 0 && window.dilation_w > 0,
          "strides and dilations must be positive");
  require(window.pad_top >= 0 && window.pad_left >= 0, "pads must not be negative");
  const int taps = window.kh * window.kw, padded = (channels + 15) / 16 * 16;
  initial_ = Buffer<int32_t>(padded), scale_ = Buffer<float>(padded), offset_ = Buffer<float>(padded);
  bool bounded = true;
  for (int c = 0; c < channels; c++) {
    int32_t sum = 0, magnitude = 0;
    for (int i = 0; i < taps; i++) {
      const int value = w[static_cast<size_t>(c) * taps + i];
      sum += value, magnitude += std::abs(value);
    }
    initial_[c] = -sum * x_zero;
    scale_[c] = scale[c], offset_[c] = offset[c];
    bounded = bounded && std::fabs(scale[c]) * 255.f * magnitude + std::fabs(offset[c]) < 1e9f;
  }
  DepthwiseWindow plain = window;  // one tap is never dilated
  if (window.kh == 1) plain.dilation_h = 1;
  if (window.kw == 1) plain.dilation_w = 1;
  filter_ = {plain, channels, x_zero, bounded, nullptr, initial_.data(), scale_.data(), offset_.data(), table};
  packed_ = Buffer<int8_t>(kernels_->packed_size(filter_));
  kernels_->pack(filter_, w, packed_.data());
  filter_.packed = packed_.data();
  row_step_ = kernels_->row_step(filter_);
  scratch_ = kernels_->scratch(filter_);
}

DepthwiseImage Depthwise::image(const uint8_t* x, int height, int width, int out_width, int row_begin,
                                int row_end) const {
  return {x, height, width, out_width, row_begin, row_end, scratch(kScratchSlot, scratch_)};
}

void Depthwise::run(const uint8_t* x, int height, int width, int out_height, int out_width, uint8_t* y, int row_begin,
                    int row_end, const uint8_t* residual, float residual_scale) const {
  kernels_->to_bytes(filter_, image(x, height, width, out_width, row_begin, std::min(row_end, out_height)), y, residual,
                     residual_scale);
}

void Depthwise::run_floats(const uint8_t* x, int height, int width, int out_height, int out_width, float* y,
                           int row_begin, int row_end) const {
  kernels_->to_floats(filter_, image(x, height, width, out_width, row_begin, std::min(row_end, out_height)), y);
}

}  // namespace oc
