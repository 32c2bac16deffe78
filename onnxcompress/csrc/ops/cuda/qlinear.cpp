#include "ops/cuda/dense_weights.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW, kWScale, kBias, kResidual, kYScale, kYZero, kTable };

struct QLinearOnDevice : DeviceKernel {
  QuantizedInput input;
  DenseWeights weights;
  LayerConstants constants;
  LinearResults results;

  explicit QLinearOnDevice(const Info& info)
      : DeviceKernel(info), input(info), weights(info, *this, kW),
        constants(info, *this, input, weights.n(), weights.sums(), kWScale, kBias),
        results(info, *this, weights.n(), kResidual) {}

  void run(Context& context) override {
    const auto x = input.read(context, *this, weights.n(), weights.k());
    results.run(context, *this, x, constants.epilogue(x),
                [&](const cuda::Epilogue& epilogue) { weights.multiply(context, *this, x.bytes, x.m, epilogue); });
  }
};

}  // namespace

OpDefinition qlinear_on_device() {
  return on_device(qlinear(), make<QLinearOnDevice>, {kW, kWScale, kBias, kYScale, kYZero, kTable});
}

}  // namespace oc
