#include "ops/cuda/normalization.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

enum In { kX, kResidual, kGamma, kBeta, kScale, kZero };

struct QLayerNormOnDevice : DeviceKernel {
  DeviceNormalization normalization;

  explicit QLayerNormOnDevice(const Info& info) : DeviceKernel(info), normalization(info, *this, kGamma) {}

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.type == kF32 && x.rank() >= 1 && x.dim(-1) == normalization.columns(),
            "the last dimension of x is not that of gamma");
    cuda::Norm p = normalization.outputs(context, x.shape);
    p.x = x.data, p.residual = residual_input(context, kResidual, x.shape);
    cuda::norm(p, context.stream());
  }
};

}  // namespace

OpDefinition qlayernorm_on_device() {
  return on_device(qlayernorm(), make<QLayerNormOnDevice>, {kGamma, kBeta, kScale, kZero});
}

}  // namespace oc
