// The input x of linear layers on a device: bytes, or floats that are quantized first.
#pragma once

#include "ops/cuda/device_kernel.hpp"

namespace oc {

// Inputs x, x_scale and x_zero_point, the first three of every linear layer.
class QuantizedInput {
 public:
  enum In { kX, kXScale, kXZero };

  // x of one run.
  struct Rows {
    const uint8_t* bytes;  // [m, k]
    int64_t m;
    const float* row_scale;     // [m], or null
    const uint8_t* row_zero;    // [m], with row_scale
    std::vector<int64_t> shape;  // of the result
    DeviceBuffer quantized;     // holds the bytes, where x is float
  };

  // Throws Error where the constants are out of range.
  explicit QuantizedInput(const Info& info);

  // x of this run, for weights of k inputs and n outputs; throws Error where it does not fit.
  Rows read(Context& context, const DeviceKernel& kernel, int n, int k) const;

  // 1 where rows have scales of their own.
  float scale() const { return scale_; }
  int zero() const { return zero_; }

 private:
  bool by_row_;
  float scale_ = 1;
  uint8_t zero_ = 0;
};

}  // namespace oc
