#include "cuda/block_sparse.hpp"
#include "ops/cuda/dense_weights.hpp"
#include "ops/cuda/expanded_blocks.hpp"

namespace oc {

namespace {

enum In { kResidual = SparseLayer::kNext, kYScale, kYZero, kTable };

class QSparseLinearOnDevice : public DeviceKernel {
 public:
  explicit QSparseLinearOnDevice(const Info& info)
      : QSparseLinearOnDevice(info, SparseLayer(info, info.integer("in_features", 0), true)) {}

  void run(Context& context) override {
    const auto x = input_.read(context, *this, weights_.outputs, weights_.depth);
    results_->run(context, *this, x, constants_->epilogue(x), [&](const cuda::Epilogue& epilogue) {
      if (dense_) return dense_->multiply(context, *this, x.bytes, x.m, epilogue);
      const int m = static_cast<int>(x.m);
      cuda::block_sparse_linear({x.bytes, m, weights_, blocks_, panels_, multiprocessors(), epilogue}, context.stream());
    });
  }

 private:
  QSparseLinearOnDevice(const Info& info, const SparseLayer& layer) : DeviceKernel(info), input_(info) {
    constexpr int kMostDepth = 49152;  // of the kernels for blocks
    const SparseWeights& w = layer.weights();
    require(w.n <= kMostDeviceOutputs, "w has too many outputs for CUDA");
    weights_.outputs = w.n, weights_.depth = w.k, weights_.block_rows = w.block;
    std::vector<int32_t> sums(w.n);
    if (w.k > kMostDepth) {
      dense_.emplace(*this, expand_blocks(w).data(), w.n, w.k);
      sums = dense_->sums();
    } else {
      weights_.values = w.values, weights_.row_start = w.row_start, weights_.column = w.column;
      cuda::sum_block_sparse(weights_, sums.data());
      upload_blocks();
    }
    constants_.emplace(info, *this, input_, w.n, sums, SparseLayer::kWScale, SparseLayer::kBias);
    results_.emplace(info, *this, w.n, kResidual);
  }

  // Moves the weights to the device, in the forms of many rows and of few.
  void upload_blocks() {
    const cuda::BlockSparsePanels packed = cuda::pack_block_sparse(weights_);
    starts_ = upload(packed.starts);
    panel_values_ = upload_some(packed.values), panel_columns_ = upload_some(packed.columns);
    panels_ = {starts_.as<int32_t>(), panel_values_.as<int8_t>(), panel_columns_.as<uint8_t>(), packed.panels,
               packed.chunks, static_cast<int64_t>(packed.groups())};
    const int rows = weights_.block_row_count();
    blocks_ = weights_.row_start[rows];
    values_ = upload_some(weights_.values, size_t(blocks_) * weights_.block_rows * 4);
    row_start_ = upload(weights_.row_start, rows + 1), column_ = upload_some(weights_.column, blocks_);
    weights_.values = values_.as<int8_t>();
    weights_.row_start = row_start_.as<int32_t>(), weights_.column = column_.as<int32_t>();
  }

  // Of weights without a block too the kernels take addresses.
  template <class T>
  DeviceBuffer upload_some(const T* values, size_t count) const {
    const T zeros[16] = {};
    return count ? upload(values, count) : upload(zeros, std::size(zeros));
  }
  template <class T>
  DeviceBuffer upload_some(const std::vector<T>& values) const {
    return upload_some(values.data(), values.size());
  }

  QuantizedInput input_;
  cuda::BlockSparseWeights weights_;
  cuda::BlockSparsePanelPointers panels_;
  int64_t blocks_ = 0;
  std::optional<DenseWeights> dense_;
  std::optional<LayerConstants> constants_;
  std::optional<LinearResults> results_;
  DeviceBuffer starts_, panel_values_, panel_columns_, values_, row_start_, column_;
};

}  // namespace

OpDefinition qsparselinear_on_device() {
  return on_device(qsparselinear(), make<QSparseLinearOnDevice>,
                   {SparseLayer::kValues, SparseLayer::kRowStart, SparseLayer::kColumn, SparseLayer::kWScale,
                    SparseLayer::kBias, kYScale, kYZero, kTable});
}

}  // namespace oc
