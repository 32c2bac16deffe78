// QLinearLayerNorm: layer normalization of x * w^T + bias + residual, to floats and to bytes.
#include "ops/qlinear_layer.hpp"
#include "ops/qlinear_norm.hpp"

namespace oc {

namespace {

enum In { kResidual = LinearLayer::kNext, kGamma };

struct QLinearLayerNorm : Kernel {
  LinearLayer layer;
  Normalization normalization;

  explicit QLinearLayerNorm(const Info& info) : layer(info), normalization(info, kGamma, layer.n()) {}

  void compute(Context& context) override {
    const LinearLayer::Input x = layer.input(context);
    const LayerNorm p = normalization.outputs(context, x.shape);
    if (x.m == 0) return;
    LinearOutput output = layer.output(x);
    output.residual = residual_input(context, kResidual, x.shape);
    // Rows are multiplied straight into `sum` or else `y`, where these are wanted: fewer bytes go through the caches.
    layer.for_rows(context, x, output, p.sum ? p.sum : p.y, [&](int begin, int end, const float* rows) {
      normalization.run(p, rows, begin, end);
    });
  }
};

}  // namespace

OpDefinition qlinearlayernorm() {
  return {"QLinearLayerNorm",
          {{kAny}, {kF32}, {kU8}, {kS8}, {kF32}, {kF32, optional}, {kF32, optional}, {kF32}, {kF32, optional},
           {kF32, optional}, {kU8, optional}},
          {{kF32, optional}, {kU8, optional}, {kF32, optional}, {kU8, optional}, {kF32, optional}},
          make<QLinearLayerNorm>};
}

}  // namespace oc
