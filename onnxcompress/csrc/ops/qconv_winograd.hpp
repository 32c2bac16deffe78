// Convolutions of 3 x 3 by Winograd's algorithm, where that is faster.
#pragma once

#include <mutex>

#include "cpu/winograd.hpp"
#include "ops/qconv_strips.hpp"

namespace oc {

// Transformed weights take eight times the memory. Where that is little they are kept, from the first run that needs
// them on; the others are transformed in every run, a few outputs at a time, which pays where the images are large.
class Winograd {
 public:
  // Whether a convolution with these weights [M, 3, 3, C] can be computed so, exactly.
  static bool suits(const Tensor& w, const Window& window, int groups);

  // `direct`: the same weights, packed for the direct convolution, which must outlive this.
  Winograd(const PackedWeights& direct, int channels, const Window& window, uint8_t x_zero);

  // Whether it is faster than the direct convolution of images of this size.
  bool pays(const Run& run) const;

  // All of y or y_float, with channels last.
  void compute(Context& context, const Run& run, Epilogue epilogue);

 private:
  struct Call;

  int64_t tiles(const Run& run) const;
  int64_t tiles_at_once(int64_t tiles) const;

  PackedWeights direct_;
  Window window_;
  int channels_, padded_;  // of the input; the latter those of its transform
  bool keeps_;
  std::once_flag transformed_;
  Buffer<int8_t> kept_;
  Buffer<uint8_t> border_;
};

}  // namespace oc
