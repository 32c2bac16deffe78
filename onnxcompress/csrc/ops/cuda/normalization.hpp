// The layer normalization that ends QLayerNorm and QLinearLayerNorm on a device.
#pragma once

#include "cuda/norm.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

// Constants gamma, beta, q_scale and q_zero_point, and outputs y, q, row_scale, row_zero_point, sum.
class DeviceNormalization {
 public:
  // The constants are inputs from `first` on; throws Error where they do not fit together. columns: 0: those of gamma.
  DeviceNormalization(const Info& info, const DeviceKernel& kernel, size_t first, int columns = 0);

  // All but the inputs; throws Error where other outputs are asked for than attributes and inputs allow.
  cuda::Norm outputs(Context& context, const std::vector<int64_t>& shape) const;

  int columns() const { return columns_; }

 private:
  int columns_;
  float epsilon_, inverse_ = 1;
  int zero_;
  bool dynamic_, quantized_;
  DeviceBuffer gamma_, beta_, inverse_vector_;
};

}  // namespace oc
