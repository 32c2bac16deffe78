// Block-sparse weights of linear layers on a device.
#pragma once

#include <optional>

#include "cuda/block_sparse.hpp"
#include "ops/cuda/dense_weights.hpp"
#include "ops/sparse_layer.hpp"

namespace oc {

// Weights of the attribute in_features, from the inputs that SparseLayer names.
class BlockSparseWeightsOnDevice {
 public:
  // Throws Error where the constants do not fit together.
  BlockSparseWeightsOnDevice(const Info& info, const DeviceKernel& kernel)
      : BlockSparseWeightsOnDevice(kernel, SparseLayer(info, info.integer("in_features", 0), true)) {}

  // x: [m, k], on the device.
  void multiply(Context& context, const DeviceKernel& kernel, const uint8_t* x, int64_t m,
                const cuda::Epilogue& epilogue) const;

  int n() const { return weights_.outputs; }
  int k() const { return weights_.depth; }
  // [n], on the host.
  const std::vector<int32_t>& sums() const { return sums_; }

 private:
  BlockSparseWeightsOnDevice(const DeviceKernel& kernel, const SparseLayer& layer);
  void upload_blocks(const DeviceKernel& kernel);

  cuda::BlockSparseWeights weights_;
  cuda::BlockSparsePanelPointers panels_;
  int64_t blocks_ = 0;
  std::vector<int32_t> sums_;
  std::optional<DenseWeights> dense_;  // in their place, where the kernels for blocks do not take so many inputs
  DeviceBuffer starts_, panel_values_, panel_columns_, values_, row_start_, column_;
};

}  // namespace oc
