// QSparseLinear: activation(x * w^T + bias) + residual, on quantized activations and block-sparse weights.
#include <climits>

#include "cpu/quantize.hpp"
#include "ops/activation.hpp"
#include "ops/qlinear_layer.hpp"
#include "ops/sparse_layer.hpp"
#include "ops/word_activation.hpp"

namespace oc {

namespace {

enum In { kResidual = SparseLayer::kNext, kYScale, kYZero, kTable };
enum Out { kY, kYFloat, kRowScale, kRowZero };

struct QSparseLinear : Kernel {
  SparseLayer layer;
  Activation activation;
  std::unique_ptr<WordActivation> words;
  bool dynamic;

  explicit QSparseLinear(const Info& info) : layer(info, info.integer("in_features", 0), true) {
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
    const Tensor x = context.input(SparseLayer::kX);
    const int k = layer.weights().k, n = layer.n();
    require(x.type == kU8 || x.type == kF32, "x must be uint8 or float");
    require(x.rank() >= 1 && x.dim(-1) == k, "the last dimension of x is not in_features");
    require(x.size() / k <= INT_MAX - 64, "x has too many rows");
    const int m = static_cast<int>(x.size() / k);
    std::vector<int64_t> shape = x.shape;
    shape.back() = n;
    SparseOutput y = layer.output();
    y.activation = activation, y.words = words.get();
    y.residual = residual_input(context, kResidual, shape);
    if (layer.rows()) row_parameters(context, x, m, y);
    results(context, shape, y);
    if (m == 0) return;
    const uint8_t* bytes = x.as<uint8_t>();
    if (x.type == kF32) {
      uint8_t* quantized = scratch(kScratchX, static_cast<size_t>(m) * k);
      const int step = std::max(1, (1 << 16) / k);
      context.parallel((static_cast<size_t>(m) + step - 1) / step, [&](size_t i) {
        const int64_t begin = static_cast<int64_t>(i) * step, count = std::min<int64_t>(step, m - begin);
        quantizing().quantize(x.as<float>() + begin * k, static_cast<int>(count), k, layer.x_scale(), layer.x_zero(),
                              quantized + begin * k, k);
      });
      bytes = quantized;
    }
    layer.multiply(context, bytes, k, m, y);
  }

  void row_parameters(Context& context, const Tensor& x, int m, SparseOutput& y) const {
    require(x.type == kU8, "x_scale and x_zero_point of one value must be constants where x is float");
    const Tensor scale = context.input(SparseLayer::kXScale), zero = context.input(SparseLayer::kXZero);
    require(scale.type == kF32 && zero.type == kU8 && scale.size() == m && zero.size() == m,
            "x_scale and x_zero_point must have one value for each row of x");
    y.x_scale = scale.as<float>(), y.x_zero = zero.as<uint8_t>();
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
