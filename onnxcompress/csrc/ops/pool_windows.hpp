// The windows of pooling, by their attributes.
#pragma once

#include <algorithm>

#include "ort/op.hpp"

namespace oc {

// The windows along one axis.
struct PoolWindows {
  int64_t kernel = 1, stride = 1, before = 0, after = 0;

  int64_t count(int64_t size, bool ceil_mode) const {
    // Below zero the division rounds up, as in ONNX Runtime: an image less than a stride too small gives a window.
    const int64_t span = size + before + after - kernel;
    int64_t windows = (span + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    // A window may not begin in the padding behind the image.
    if (ceil_mode && (windows - 1) * stride >= size + before) windows--;
    return windows;
  }
  int64_t begin(int64_t window) const { return window * stride - before; }
  // Of window: positions in the image, and those in the image and its padding.
  int64_t valid(int64_t window, int64_t size) const {
    return std::min(begin(window) + kernel, size) - std::max<int64_t>(begin(window), 0);
  }
  int64_t padded(int64_t window, int64_t size) const {
    return std::min(begin(window) + kernel, size + after) - begin(window);
  }
};

// Along both; throws Error for attributes that no image could have.
struct PoolShape {
  PoolWindows down, across;
  bool ceil_mode;

  explicit PoolShape(const Info& info) : ceil_mode(info.integer("ceil_mode", 0) != 0) {
    const auto kernel = info.integers("kernel_shape", {1, 1}), strides = info.integers("strides", {1, 1}),
               pads = info.integers("pads", {0, 0, 0, 0});
    require(kernel.size() == 2 && strides.size() == 2 && pads.size() == 4,
            "kernel_shape and strides must have 2 values, pads 4");
    down = {kernel[0], strides[0], pads[0], pads[2]}, across = {kernel[1], strides[1], pads[1], pads[3]};
    require(kernel[0] > 0 && kernel[1] > 0 && kernel[0] < (1 << 23) / kernel[1],
            "kernel_shape must be at least 1 and less than 8 million together");
    for (const PoolWindows& axis : {down, across}) {
      require(axis.stride >= 1 && axis.stride <= 1 << 20, "strides must be at least 1");
      require(axis.before >= 0 && axis.after >= 0 && axis.before < axis.kernel && axis.after < axis.kernel,
              "pads must be less than kernel_shape");
      // Padding is memory and time that no element of x stands for.
      require(axis.before <= 1024 && axis.after <= 1024, "pads must be at most 1024");
    }
  }
};

}  // namespace oc
