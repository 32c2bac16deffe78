#include "ops/cuda/block_sparse_weights.hpp"

namespace oc {

namespace {

enum In { kResidual = SparseLayer::kNext, kYScale, kYZero, kTable };

struct QSparseLinearOnDevice : DeviceKernel {
  QuantizedInput input;
  BlockSparseWeightsOnDevice weights;
  LayerConstants constants;
  LinearResults results;

  explicit QSparseLinearOnDevice(const Info& info)
      : DeviceKernel(info), input(info), weights(info, *this),
        constants(info, *this, input, weights.n(), weights.sums(), SparseLayer::kWScale, SparseLayer::kBias),
        results(info, *this, weights.n(), kResidual) {}

  void run(Context& context) override {
    const auto x = input.read(context, *this, weights.n(), weights.k());
    results.run(context, *this, x, constants.epilogue(x), [&](const cuda::Epilogue& epilogue) {
      weights.multiply(context, *this, x.bytes, x.m, epilogue);
    });
  }
};

}  // namespace

OpDefinition qsparselinear_on_device() {
  return on_device(qsparselinear(), make<QSparseLinearOnDevice>,
                   {SparseLayer::kValues, SparseLayer::kRowStart, SparseLayer::kColumn, SparseLayer::kWScale,
                    SparseLayer::kBias, kYScale, kYZero, kTable});
}

}  // namespace oc
