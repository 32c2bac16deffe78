// Linear layers, dense or block-sparse, that end in a layer normalization.
#pragma once

#include "ops/qlinear_norm.hpp"
#include "ort/op.hpp"

namespace oc {

// Layer: LinearLayer or SparseLinear, whose inputs are followed by residual and those of Normalization.
template <class Layer>
struct LinearNorm : Kernel {
  enum In { kResidual = Layer::kNext, kGamma };

  Layer layer;
  Normalization normalization;

  explicit LinearNorm(const Info& info) : layer(info), normalization(info, kGamma, layer.n()) {}

  void compute(Context& context) override {
    const auto x = layer.input(context);
    const LayerNorm p = normalization.outputs(context, x.shape);
    if (x.m == 0) return;
    auto output = layer.output(x);
    output.residual = residual_input(context, kResidual, x.shape);
    // Rows are multiplied straight into `sum` or else `y`, where these are wanted: fewer bytes go through the caches.
    layer.for_rows(context, x, output, p.sum ? p.sum : p.y, [&](int begin, int end, const float* rows) {
      normalization.run(p, rows, begin, end);
    });
  }
};

}  // namespace oc
