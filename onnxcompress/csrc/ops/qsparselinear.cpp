// QSparseLinear: activation(x * w^T + bias) + residual, on quantized activations and block-sparse weights.
#include "ops/activation.hpp"
#include "ops/sparse_linear.hpp"
#include "ops/word_activation.hpp"

namespace oc {

namespace {

enum In { kResidual = SparseLayer::kNext, kYScale, kYZero, kTable };
enum Out { kY, kYFloat, kRowScale, kRowZero };

struct QSparseLinear : Kernel {
  SparseLinear layer;
  Activation activation;
  std::unique_ptr<WordActivation> words;
  bool dynamic;

  explicit QSparseLinear(const Info& info) : layer(info) {
    layer.quantize(info, kYScale, kTable);
    dynamic = info.integer("dynamic", 0) != 0;
    constexpr float kDynamicStep = 2e-3f;  // a row's own range is in proportion to its values, as errors are
    activation = make_activation(info.text("activation", ""), dynamic ? kDynamicStep : layer.least_scale());
    const auto y_scale = info.constant(kYScale);
    if (y_scale && y_scale->size() == 1 && !dynamic)
      words = make_word_activation(info.text("activation", ""), layer.least_scale(),
                                   info.zero_point(kYZero, "y_zero_point", 0));
  }

  void compute(Context& context) override {
    const SparseLinear::Input x = layer.input(context);
    SparseOutput y = layer.output(x);
    y.activation = activation, y.words = words.get();
    y.residual = residual_input(context, kResidual, x.shape);
    results(context, x.shape, y);
    if (x.m) layer.multiply(context, x, y);
  }

  void results(Context& context, const std::vector<int64_t>& shape, SparseOutput& y) const {
    std::vector<int64_t> row_shape = shape;
    row_shape.back() = 1;
    const Tensor bytes = context.output(kY, shape, kU8), floats = context.output(kYFloat, shape, kF32);
    y.bytes = bytes.as<uint8_t>(), y.floats = floats.as<float>();
    if (dynamic) {
      y.row_scale = context.output(kRowScale, row_shape, kF32).as<float>();
      y.row_zero = context.output(kRowZero, row_shape, kU8).as<uint8_t>();
    }
    if (bytes.size() == 0) return;  // tensors without elements have no data either
    require(layer.quantized() || dynamic ? y.bytes && !y.floats : y.floats && !y.bytes,
            "the output is y where y_scale is given or dynamic is 1, and y_float otherwise");
    require(!dynamic || (y.row_scale && y.row_zero),
            "with dynamic = 1 the outputs are y, y_row_scale and y_row_zero_point");
  }
};

}  // namespace

OpDefinition qsparselinear() {
  return {"QSparseLinear",
          {{kAny}, {kF32}, {kU8}, {kS8}, {kI32}, {kI32}, {kF32}, {kF32, optional}, {kF32, optional}, {kF32, optional},
           {kU8, optional}, {kU8, optional}},
          {{kU8, optional}, {kF32, optional}, {kF32, optional}, {kU8, optional}},
          make<QSparseLinear>};
}

}  // namespace oc
