// Convolutions of 3 x 3 by Winograd's algorithm, where that is faster.
#pragma once

#include <mutex>

#include "cpu/winograd.hpp"
#include "ops/qconv_strips.hpp"

namespace oc {

class Winograd {
 public:
  // Whether a convolution with these weights [M, 3, 3, C] can be computed so, exactly.
  static bool suits(const Tensor& w, const Window& window, int groups);

  Winograd(const Tensor& w, const Window& window, uint8_t x_zero);

  // Whether it is faster than the direct convolution of images of this size.
  bool pays(const Run& run) const;

  // All of y or y_float, with channels last.
  void compute(Context& context, const Run& run, Epilogue epilogue);

 private:
  int64_t tiles(const Run& run) const;
  void transform_weights();

  std::vector<int8_t> w_;  // until they are transformed, in the first run that needs them
  Window window_;
  int outputs_, channels_;
  uint8_t x_zero_;
  std::once_flag transformed_;
  Buffer<int8_t> data_;
  Buffer<int32_t> zeros_, offset_;
  Buffer<uint8_t> border_;
};

}  // namespace oc
