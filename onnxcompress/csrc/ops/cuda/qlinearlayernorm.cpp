#include "ops/cuda/dense_weights.hpp"
#include "ops/cuda/normalization.hpp"
#include "ops/qlinear_layer.hpp"

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
    const auto x = input.read(context, *this, weights.n(), weights.k());
    cuda::Norm p = normalization.outputs(context, x.shape);
    if (x.m == 0) return;
    cuda::Epilogue epilogue = constants.epilogue(x);
    epilogue.residual_float = residual_input(context, kResidual, x.shape);
    // The sums go straight into `sum`, where it is wanted.
    const DeviceBuffer floats = p.sum ? DeviceBuffer() : allocate(context, p.rows * p.columns * sizeof(float));
    epilogue.y_float = p.sum ? static_cast<float*>(p.sum) : floats.as<float>();
    weights.multiply(context, *this, x.bytes, x.m, epilogue);
    p.x = epilogue.y_float, p.sum = nullptr;
    cuda::norm(p, context.stream());
  }
};

}  // namespace

OpDefinition qlinearlayernorm_on_device() {
  return on_device(qlinearlayernorm(), make<QLinearLayerNormOnDevice>,
                   {kW, kWScale, kBias, kGamma, kBeta, kScale, kZero});
}

}  // namespace oc
