#include "ops/cuda/dense_weights.hpp"
#include "ops/cuda/linear_norm.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW, kWScale, kBias, kResidual, kGamma, kBeta, kScale, kZero };

struct QLinearLayerNormOnDevice : DeviceKernel {
  QuantizedInput input;
  DenseWeights weights;
  LayerConstants constants;
  DeviceNormalization normalization;

  explicit QLinearLayerNormOnDevice(const Info& info)
      : DeviceKernel(info), input(info), weights(info, *this, kW),
        constants(info, *this, input, weights.n(), weights.sums(), kWScale, kBias),
        normalization(info, *this, kGamma, weights.n()) {}

  void run(Context& context) override {
    run_linear_norm(context, *this, input, weights, constants, normalization, kResidual);
  }
};

}  // namespace

OpDefinition qlinearlayernorm_on_device() {
  return on_device(qlinearlayernorm(), make<QLinearLayerNormOnDevice>,
                   {kW, kWScale, kBias, kGamma, kBeta, kScale, kZero});
}

}  // namespace oc
