// QLayerNorm: layer normalization of x + residual, to floats and to bytes.
#include "ops/qlinear_layer.hpp"
#include "ops/qlinear_norm.hpp"

namespace oc {

namespace {

enum In { kX, kResidual, kGamma };

struct QLayerNorm : Kernel {
  Normalization normalization;

  explicit QLayerNorm(const Info& info) : normalization(info, kGamma) {}

  void compute(Context& context) override {
    const Tensor x = context.input(kX);
    const int c = normalization.c();
    require(x.type == kF32 && x.rank() >= 1 && x.dim(-1) == c, "the last dimension of x is not that of gamma");
    LayerNorm p = normalization.outputs(context, x.shape);
    p.residual = residual_input(context, kResidual, x.shape);
    const int64_t rows = x.size() / c, step = std::max<int64_t>(1, (1 << 14) / c);
    context.parallel((rows + step - 1) / step, [&](size_t i) {
      const int64_t begin = i * step, end = std::min(rows, begin + step);
      normalization.run(p, x.as<float>() + begin * c, begin, end);
    });
  }
};

}  // namespace

OpDefinition qlayernorm() {
  return {"QLayerNorm",
          {{kF32}, {kF32, optional}, {kF32}, {kF32, optional}, {kF32, optional}, {kU8, optional}},
          {{kF32, optional}, {kU8, optional}, {kF32, optional}, {kU8, optional}, {kF32, optional}},
          make<QLayerNorm>};
}

}  // namespace oc
