// QLinear: activation(x * w^T + bias) + residual, on quantized activations and weights.
#include "cpu/quantize.hpp"
#include "ops/activation.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

enum In { kResidual = LinearLayer::kNext, kYScale, kYZero, kTable };
enum Out { kY, kYFloat, kRowScale, kRowZero };

struct QLinear : Kernel {
  LinearLayer layer;
  Activation activation;
  Buffer<float> inverse;  // 1 / y_scale
  float y_zero;
  bool quantized, dynamic;
  const uint8_t* table;

  explicit QLinear(const Info& info) : layer(info) {
    const auto y_scale = info.constant(kYScale);
    quantized = y_scale.has_value(), dynamic = info.integer("dynamic", 0) != 0;
    y_zero = info.zero_point(kYZero, "y_zero_point", 0);
    table = byte_table(info, kTable);
    float least_scale = 0;
    if (quantized) {
      inverse = inverse_scale(*y_scale, layer.n(), layer.padded(), "y_scale");
      least_scale = 1.f / *std::max_element(inverse.data(), inverse.data() + layer.n());
    }
    // A row's own range is in proportion to its values, and so are the polynomials' errors.
    constexpr float kDynamicStep = 2e-3f;
    activation = make_activation(info.text("activation", ""), dynamic ? kDynamicStep : least_scale);
    if (quantized && !dynamic && LinearOutput::folded(activation)) layer.fold(inverse.data(), y_zero);
  }

  void compute(Context& context) override {
    const LinearLayer::Input x = layer.input(context);
    LinearOutput output = layer.output(x);
    output.activation = activation, output.inverse = inverse.data(), output.zero_point = y_zero;
    output.residual = residual_input(context, kResidual, x.shape);
    const Tensor floats = context.output(kYFloat, x.shape, kF32);
    if (dynamic) return compute_dynamic(context, x, output, floats);
    const Tensor y = context.output(kY, x.shape, kU8);
    if (x.m == 0) return;
    require(quantized ? y.data && !floats.data : floats.data && !y.data,
            "the output is y where y_scale is given or dynamic is 1, and y_float otherwise");
    output.bytes = y.as<uint8_t>(), output.floats = floats.as<float>(), output.table = table;
    layer.multiply(context, x, output);
  }

  void compute_dynamic(Context& context, const LinearLayer::Input& x, const LinearOutput& output,
                       const Tensor& floats) const {
    std::vector<int64_t> row_shape = x.shape;
    row_shape.back() = 1;
    const Tensor y = context.output(kY, x.shape, kU8), scale = context.output(kRowScale, row_shape, kF32),
                 zero = context.output(kRowZero, row_shape, kU8);
    if (x.m == 0) return;
    require(y.data && scale.data && zero.data && !floats.data,
            "with dynamic = 1 the outputs are y, y_row_scale and y_row_zero_point");
    layer.for_rows(context, x, output, nullptr, [&](int begin, int end, const float* rows) {
      uint8_t* bytes = y.as<uint8_t>() + static_cast<ptrdiff_t>(begin) * layer.n();
      quantizing().quantize_rows(rows, end - begin, layer.n(), bytes, scale.as<float>() + begin,
                                 zero.as<uint8_t>() + begin, table);
    });
  }
};

}  // namespace

OpDefinition qlinear() {
  return {"QLinear",
          {{kAny}, {kF32}, {kU8}, {kS8}, {kF32}, {kF32, optional}, {kF32, optional}, {kF32, optional}, {kU8, optional},
           {kU8, optional}},
          {{kU8, optional}, {kF32, optional}, {kF32, optional}, {kU8, optional}},
          make<QLinear>};
}

}  // namespace oc
