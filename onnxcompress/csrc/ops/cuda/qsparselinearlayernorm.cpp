#include "ops/cuda/block_sparse_weights.hpp"
#include "ops/cuda/linear_norm.hpp"

namespace oc {

namespace {

enum In { kResidual = SparseLayer::kNext, kGamma, kBeta, kScale, kZero };

struct QSparseLinearLayerNormOnDevice : DeviceKernel {
  QuantizedInput input;
  BlockSparseWeightsOnDevice weights;
  LayerConstants constants;
  DeviceNormalization normalization;

  explicit QSparseLinearLayerNormOnDevice(const Info& info)
      : DeviceKernel(info), input(info), weights(info, *this),
        constants(info, *this, input, weights.n(), weights.sums(), SparseLayer::kWScale, SparseLayer::kBias),
        normalization(info, *this, kGamma, weights.n()) {}

  void run(Context& context) override {
    run_linear_norm(context, *this, input, weights, constants, normalization, kResidual);
  }
};

}  // namespace

OpDefinition qsparselinearlayernorm_on_device() {
  return on_device(qsparselinearlayernorm(), make<QSparseLinearLayerNormOnDevice>,
                   {SparseLayer::kValues, SparseLayer::kRowStart, SparseLayer::kColumn, SparseLayer::kWScale,
                    SparseLayer::kBias, kGamma, kBeta, kScale, kZero});
}

}  // namespace oc
