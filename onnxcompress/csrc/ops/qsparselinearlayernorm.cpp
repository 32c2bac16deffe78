// QSparseLinearLayerNorm: QLinearLayerNorm with block-sparse weights.
#include "ops/qlinear_norm.hpp"
#include "ops/sparse_linear.hpp"

namespace oc {

namespace {

enum In { kResidual = SparseLinear::kNext, kGamma };

struct QSparseLinearLayerNorm : Kernel {
  SparseLinear layer;
  Normalization normalization;

  explicit QSparseLinearLayerNorm(const Info& info) : layer(info), normalization(info, kGamma, layer.n()) {}

  void compute(Context& context) override {
    const SparseLinear::Input x = layer.input(context);
    const LayerNorm p = normalization.outputs(context, x.shape);
    if (x.m == 0) return;
    SparseOutput output = layer.output(x);
    output.residual = residual_input(context, kResidual, x.shape);
    // As in QLinearLayerNorm, straight into `sum` or else `y`.
    layer.for_rows(context, x, output, p.sum ? p.sum : p.y, [&](int begin, int end, const float* rows) {
      normalization.run(p, rows, begin, end);
    });
  }
};

}  // namespace

OpDefinition qsparselinearlayernorm() {
  return {"QSparseLinearLayerNorm",
          {{kAny}, {kF32}, {kU8}, {kS8}, {kI32}, {kI32}, {kF32}, {kF32, optional}, {kF32}, {kF32}, {kF32, optional},
           {kF32, optional}, {kU8, optional}},
          {{kF32, optional}, {kU8, optional}, {kF32, optional}, {kU8, optional}, {kF32, optional}},
          make<QSparseLinearLayerNorm>};
}

}  // namespace oc
