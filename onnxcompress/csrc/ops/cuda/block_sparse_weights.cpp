#include "ops/cuda/block_sparse_weights.hpp"

#include "ops/cuda/expanded_blocks.hpp"

namespace oc {

namespace {

// Of weights without a block too the kernels take addresses.
template <class T>
DeviceBuffer upload_some(const DeviceKernel& kernel, const T* values, size_t count) {
  const T zeros[16] = {};
  return count ? kernel.upload(values, count) : kernel.upload(zeros, std::size(zeros));
}

template <class T>
DeviceBuffer upload_some(const DeviceKernel& kernel, const std::vector<T>& values) {
  return upload_some(kernel, values.data(), values.size());
}

}  // namespace

BlockSparseWeightsOnDevice::BlockSparseWeightsOnDevice(const DeviceKernel& kernel, const SparseLayer& layer) {
  constexpr int kMostDepth = 49152;  // of the kernels for blocks
  const SparseWeights& w = layer.weights();
  require(w.n <= kMostDeviceOutputs, "w has too many outputs for CUDA");
  weights_.outputs = w.n, weights_.depth = w.k, weights_.block_rows = w.block;
  sums_.resize(w.n);
  if (w.k > kMostDepth) {
    dense_.emplace(kernel, expand_blocks(w).data(), w.n, w.k);
    sums_ = dense_->sums();
    return;
  }
  weights_.values = w.values, weights_.row_start = w.row_start, weights_.column = w.column;
  cuda::sum_block_sparse(weights_, sums_.data());
  upload_blocks(kernel);
}

// Moves the weights to the device, in the forms of many rows and of few.
void BlockSparseWeightsOnDevice::upload_blocks(const DeviceKernel& kernel) {
  const cuda::BlockSparsePanels packed = cuda::pack_block_sparse(weights_);
  starts_ = kernel.upload(packed.starts);
  panel_values_ = upload_some(kernel, packed.values), panel_columns_ = upload_some(kernel, packed.columns);
  panels_ = {starts_.as<int32_t>(), panel_values_.as<int8_t>(), panel_columns_.as<uint8_t>(), packed.panels,
             packed.chunks, static_cast<int64_t>(packed.groups())};
  const int rows = weights_.block_row_count();
  blocks_ = weights_.row_start[rows];
  values_ = upload_some(kernel, weights_.values, size_t(blocks_) * weights_.block_rows * 4);
  row_start_ = kernel.upload(weights_.row_start, rows + 1), column_ = upload_some(kernel, weights_.column, blocks_);
  weights_.values = values_.as<int8_t>();
  weights_.row_start = row_start_.as<int32_t>(), weights_.column = column_.as<int32_t>();
}

void BlockSparseWeightsOnDevice::multiply(Context& context, const DeviceKernel& kernel, const uint8_t* x, int64_t m,
                                          const cuda::Epilogue& epilogue) const {
  if (dense_) return dense_->multiply(context, kernel, x, m, epilogue);
  const int rows = static_cast<int>(m);
  cuda::block_sparse_linear({x, rows, weights_, blocks_, panels_, kernel.multiprocessors(), epilogue},
                            context.stream());
}

}  // namespace oc
