// Padded copies of the lines of an image that a convolution's windows reach.
#pragma once

#include "ops/qconv_filters.hpp"

namespace oc {

// One run: the tensors' sizes and pointers.
struct Run {
  int64_t images, height, width, out_height, out_width;
  const uint8_t* x;     // [images][height][width][C], or
  const float* planes;  // [images][C][height][width], which are quantized as a strip is filled
  uint8_t* y;
  float* y_float;
  const uint8_t* residual;
};

class Strips {
 public:
  Strips(const Window& window, int channels, float x_scale, uint8_t x_zero)
      : window_(window), channels_(channels), x_scale_(x_scale), x_zero_(x_zero) {}

  // Bytes between the lines of a strip. Where windows are dilated, a strip has a copy of each.
  int64_t pitch(const Run& run, const Filters& filters) const;

  // Lines of a strip for so many lines of the output.
  int64_t count(int64_t lines) const;

  // The lines that `lines` output lines from `first` on need, in scratch memory.
  Lines fill(const Run& run, const Filters& filters, int group, int64_t image, int64_t first, int64_t lines) const;

 private:
  int64_t reach(const Run& run) const;
  int64_t pad(const Run& run, int64_t pixel, uint8_t* to) const;
  void quantize(const Run& run, int64_t pixel, int64_t image, int64_t y, uint8_t* to) const;
  void copy(const Run& run, int64_t pixel, int group, int64_t image, int64_t y, uint8_t* to) const;
  void copy_windows(const Run& run, int64_t pixel, int group, int64_t image, int64_t y, uint8_t* to) const;

  Window window_;
  int channels_;
  float x_scale_;
  uint8_t x_zero_;
};

}  // namespace oc
