// Depthwise convolution: one filter a channel, on unsigned bytes in NHWC order.
#pragma once

#include <cstdint>

#include "cpu/depthwise.hpp"
#include "ops/buffer.hpp"

namespace oc {

// A depthwise convolution with its weights packed for the instruction set that was active when it was made.
class Depthwise {
 public:
  Depthwise() = default;

  // w is [channels][kh][kw]; y = table[saturate(round(sum * scale + offset))], where the sum is of
  // (x - x_zero) * w and what lies outside the image counts as x_zero. scale and offset have `channels` values;
  // `table` (256 bytes, may be null) must outlive this. Throws Error where the window is not a sensible one.
  Depthwise(const int8_t* w, int channels, const DepthwiseWindow& window, const float* scale, const float* offset,
            uint8_t x_zero, const uint8_t* table = nullptr);

  // Rows of the output that are made together: pieces for threads should be multiples of it.
  int row_step() const { return row_step_; }

  // Rows [row_begin, row_end) of one image: x is [height][width][channels], y is [out_height][out_width][channels]
  // (pointers to the whole image). Safe to call from several threads.
  // `residual`, shaped as y, is added before rounding, times residual_scale; its zero point belongs to the offset.
  void run(const uint8_t* x, int height, int width, int out_height, int out_width, uint8_t* y, int row_begin,
           int row_end, const uint8_t* residual = nullptr, float residual_scale = 0) const;

  // The same in floats, neither rounded nor looked up: y = sum * scale + offset.
  void run_floats(const uint8_t* x, int height, int width, int out_height, int out_width, float* y, int row_begin,
                  int row_end) const;

 private:
  DepthwiseImage image(const uint8_t* x, int height, int width, int out_width, int row_begin, int row_end) const;

  const DepthwiseKernels* kernels_ = nullptr;
  DepthwiseFilter filter_{};
  int row_step_ = 1;
  size_t scratch_ = 0;
  Buffer<int8_t> packed_;
  Buffer<int32_t> initial_;
  Buffer<float> scale_, offset_;
};

}  // namespace oc
