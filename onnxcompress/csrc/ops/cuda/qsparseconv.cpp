// The tensor cores make up for the zeros: blocks of four inputs would leave most of a tile's loads unused, so the
// weights are expanded and the dense convolution is run.
#include "ops/cuda/convolution_layer.hpp"
#include "ops/cuda/expanded_blocks.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

enum In { kYScale = SparseLayer::kNext, kYZero, kTable };

int64_t inputs_of(const Info& info) {
  const auto kernel = info.integers("kernel_shape", {1, 1});
  const int64_t c = info.integer("in_channels", 0);
  constexpr int64_t kMost = 65536;
  const auto within = [](int64_t size) { return size >= 1 && size <= kMost; };
  require(kernel.size() == 2 && within(kernel[0]) && within(kernel[1]) && within(c),
          "kernel_shape must be two positive numbers, and in_channels a positive number");
  return kernel[0] * kernel[1] * c;
}

class QSparseConvOnDevice : public DeviceKernel {
 public:
  explicit QSparseConvOnDevice(const Info& info)
      : QSparseConvOnDevice(info, SparseLayer(info, inputs_of(info), false), info.integers("kernel_shape", {1, 1})) {}

  void run(Context& context) override {
    const Tensor x = context.input(SparseLayer::kX);
    require(x.type == kU8 && x.rank() == 4 && x.dim(3) == layer_.channels(), "x must be uint8 [N, H, W, in_channels]");
    const std::vector<int64_t> shape = {x.dim(0), window_.out_height(x.dim(1)), window_.out_width(x.dim(2)),
                                        epilogue_.columns};
    require(shape[1] > 0 && shape[2] > 0, "the kernel is larger than the padded image");
    const Tensor y = context.output(0, shape, kU8), y_float = context.output(1, shape, kF32);
    if (shape[0] == 0) return;
    require(quantized_ ? y.data && !y_float.data : y_float.data && !y.data,
            "the output is y where y_scale is given, and y_float otherwise");
    cuda::Epilogue epilogue = epilogue_;
    epilogue.y = y.as<uint8_t>(), epilogue.y_float = y_float.as<float>();
    layer_.run(context, *this, {x.as<uint8_t>(), x.dim(0), x.dim(1), x.dim(2)}, epilogue);
  }

 private:
  QSparseConvOnDevice(const Info& info, const SparseLayer& layer, const std::vector<int64_t>& kernel)
      : DeviceKernel(info), window_(info, kernel[0], kernel[1]),
        layer_(*this, expand_blocks(layer.weights()).data(), filters(layer.n(), kernel, info), window_) {
    const int n = layer.n();
    Buffer<float> scale = per_column(info.constant(SparseLayer::kWScale, kF32, "w_scale"), n, n, "w_scale");
    for (int c = 0; c < n; c++) scale[c] *= layer.x_scale();
    scale_ = upload(scale);
    if (const auto bias = info.constant(SparseLayer::kBias)) bias_ = upload(bias->as<float>(), n);
    if (const uint8_t* table = byte_table(info, kTable)) table_ = upload(table, 256);
    epilogue_.columns = n, epilogue_.x_zero = layer.x_zero(), epilogue_.weight_sums = layer_.weight_sums();
    epilogue_.scale = scale_.as<float>(), epilogue_.bias = bias_.as<float>(), epilogue_.table = table_.as<uint8_t>();
    epilogue_.y_zero = info.zero_point(kYZero, "y_zero_point", 0);
    const auto y_scale = info.constant(kYScale);
    quantized_ = y_scale.has_value();
    if (!quantized_) return;
    const Buffer<float> inverse = inverse_scale(*y_scale, n, n, "y_scale");
    epilogue_.y_inverse = inverse[0];
    if (y_scale->size() == 1) return;
    inverse_ = upload(inverse);
    epilogue_.y_inverse_vector = inverse_.as<float>();
  }

  cuda::ConvolutionFilters filters(int n, const std::vector<int64_t>& kernel, const Info& info) const {
    return {n, static_cast<int>(kernel[0]), static_cast<int>(kernel[1]),
            static_cast<int>(info.integer("in_channels", 0)), 1, window_.dilation_h, window_.dilation_w};
  }

  Window window_;
  ConvolutionLayer layer_;
  bool quantized_ = false;
  cuda::Epilogue epilogue_;
  DeviceBuffer scale_, bias_, table_, inverse_;
};

}  // namespace

OpDefinition qsparseconv_on_device() {
  return on_device(qsparseconv(), make<QSparseConvOnDevice>,
                   {SparseLayer::kXScale, SparseLayer::kXZero, SparseLayer::kValues, SparseLayer::kRowStart,
                    SparseLayer::kColumn, SparseLayer::kWScale, SparseLayer::kBias, kYScale, kYZero, kTable});
}

}  // namespace oc
