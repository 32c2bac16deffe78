#include "ops/cuda/layer_output.hpp"

#include "cuda/quantize.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

enum Out { kY, kYFloat, kRowScale, kRowZero };

}  // namespace

cuda::Activation device_activation(const std::string& name) {
  using cuda::Activation;
  if (name.empty()) return Activation::kNone;
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "silu") return Activation::kSilu;
  if (name == "hardswish") return Activation::kHardSwish;
  throw Error("no activation is called '" + name + "'");
}

LayerConstants::LayerConstants(const Info& info, const DeviceKernel& kernel, const QuantizedInput& x, int n,
                               const std::vector<int32_t>& weight_sums, size_t w_scale, size_t bias)
    : n_(n), x_zero_(x.zero()), weight_sums_(kernel.upload(weight_sums)) {
  Buffer<float> scale = per_column(info.constant(w_scale, kF32, "w_scale"), n, n, "w_scale");
  for (int c = 0; c < n; c++) scale[c] *= x.scale();
  scale_ = kernel.upload(scale);
  if (const auto given = info.constant(bias)) {
    require(given->type == kF32 && given->size() == n, "bias must have N floats");
    bias_ = kernel.upload(given->as<float>(), n), has_bias_ = true;
  }
}

cuda::Epilogue LayerConstants::epilogue(const QuantizedInput::Rows& x) const {
  cuda::Epilogue e;
  e.columns = n_, e.x_zero = x_zero_, e.weight_sums = weight_sums_.as<int32_t>(), e.scale = scale_.as<float>();
  if (has_bias_) e.bias = bias_.as<float>();
  e.row_scale = x.row_scale, e.row_zero = x.row_zero;
  return e;
}

LinearResults::LinearResults(const Info& info, const DeviceKernel& kernel, int n, size_t first)
    : n_(n), zero_(info.zero_point(first + 2, "y_zero_point", 0)), residual_(first),
      dynamic_(info.integer("dynamic", 0) != 0), activation_(device_activation(info.text("activation", ""))) {
  const auto scale = info.constant(first + 1);
  quantized_ = scale.has_value();
  if (quantized_) {
    const Buffer<float> inverse = inverse_scale(*scale, n, n, "y_scale");
    inverse_ = inverse[0];
    if (scale->size() > 1 || dynamic_) inverse_vector_ = kernel.upload(inverse);
  }
  if (const uint8_t* table = byte_table(info, first + 3)) table_ = kernel.upload(table, 256);
}

LinearResults::Outputs LinearResults::add(Context& context, const DeviceKernel& kernel, const QuantizedInput::Rows& x,
                                          cuda::Epilogue& e) const {
  e.activation = activation_;
  e.residual_float = residual_input(context, residual_, x.shape);
  Outputs outputs;
  const Tensor floats = context.output(kYFloat, x.shape, kF32);
  outputs.y = context.output(kY, x.shape, kU8);
  if (dynamic_) {
    std::vector<int64_t> row_shape = x.shape;
    row_shape.back() = 1;
    outputs.scale = context.output(kRowScale, row_shape, kF32);
    outputs.zero = context.output(kRowZero, row_shape, kU8);
  }
  if (x.m == 0) return outputs;
  if (dynamic_) {
    require(outputs.y.data && outputs.scale.data && outputs.zero.data && !floats.data,
            "with dynamic = 1 the outputs are y, y_row_scale and y_row_zero_point");
    outputs.floats = kernel.allocate(context, x.m * n_ * sizeof(float));
    e.y_float = outputs.floats.as<float>();
    return outputs;
  }
  require(quantized_ ? outputs.y.data && !floats.data : floats.data && !outputs.y.data,
          "the output is y where y_scale is given or dynamic is 1, and y_float otherwise");
  e.y = outputs.y.as<uint8_t>(), e.y_float = floats.as<float>();
  e.y_inverse = inverse_, e.y_inverse_vector = inverse_vector_.as<float>(), e.y_zero = zero_;
  e.table = table_.as<uint8_t>();
  return outputs;
}

void LinearResults::finish(Context& context, const QuantizedInput::Rows& x, const cuda::Epilogue& e,
                           const Outputs& outputs) const {
  if (!dynamic_) return;
  cuda::quantize_rows({e.y_float, inverse_vector_.as<float>(), table_.as<uint8_t>(), outputs.y.as<uint8_t>(),
                       outputs.scale.as<float>(), outputs.zero.as<uint8_t>(), x.m, n_},
                      context.stream());
}

}  // namespace oc
