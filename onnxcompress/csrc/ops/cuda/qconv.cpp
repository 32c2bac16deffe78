#include "cuda/layout.hpp"
#include "ops/cuda/convolution_layer.hpp"

namespace oc {

namespace {

bool is_planes(const Info& info, const char* name) {
  const std::string layout = info.text(name, "NHWC");
  require(layout == "NHWC" || layout == "NCHW", "a layout must be NHWC or NCHW");
  return layout == "NCHW";
}

class QConvOnDevice : public DeviceKernel {
 public:
  explicit QConvOnDevice(const Info& info)
      : DeviceKernel(info), filters_(checked_filters(info)), window_(info, filters_.kernel_h, filters_.kernel_w),
        layer_(*this, info.constant(kConvW, kS8, "w").as<int8_t>(), with_dilation(filters_, window_), window_),
        from_planes_(is_planes(info, "x_layout")), x_scale_(info.scalar(kConvXScale, "x_scale", 1)) {
    require(x_scale_ > 0, "x_scale must be positive");
    read_epilogue(info);
    to_planes_ = is_planes(info, "y_layout") && !to_bytes_;
    for (size_t i = kConvBias; i <= kConvFinalZero; i++) constant_[i] = info.constant(i).has_value();
  }

  void run(Context& context) override {
    for (size_t i = kConvBias; i <= kConvFinalZero; i++)
      require(i == kConvResidual || constant_[i] == context.has(i), "only x and residual may be computed at run time");
    const Tensor x = context.input(kConvX);
    require(x.rank() == 4, "x must have 4 dimensions");
    require(x.type == (from_planes_ ? kF32 : kU8), "x must be uint8 in NHWC, or float in NCHW");
    require(x.dim(from_planes_ ? 1 : 3) == layer_.channels(), "the channels of x are not those of w");
    DeviceImage image{x.as<uint8_t>(), x.dim(0), x.dim(from_planes_ ? 2 : 1), x.dim(from_planes_ ? 3 : 2)};
    const int64_t out_height = window_.out_height(image.height), out_width = window_.out_width(image.width);
    require(out_height > 0 && out_width > 0, "the kernel is larger than the padded image");
    std::vector<int64_t> shape = {image.batch, out_height, out_width, filters_.outputs};
    cuda::Epilogue epilogue = epilogue_;
    if (context.has(kConvResidual)) {
      const Tensor residual = context.input(kConvResidual);
      require(residual.type == kU8 && residual.shape == shape, "residual must be uint8 of the shape of y in NHWC");
      epilogue.residual_bytes = residual.as<uint8_t>();
    }
    require(context.has(kConvResidual) || !epilogue.residual_after, "residual_after needs a residual");
    if (to_planes_) {
      shape = {image.batch, filters_.outputs, out_height, out_width};
      epilogue.channels_first_pixels = static_cast<int>(out_height * out_width);
    }
    const Tensor y = context.output(0, shape, kU8), y_float = context.output(1, shape, kF32);
    if (y.size() == 0) return;
    require(x.size() > 0, "the image is empty");
    epilogue.y = y.as<uint8_t>(), epilogue.y_float = y_float.as<float>();
    require(to_bytes_ ? y.data && !y_float.data : y_float.data && !y.data,
            "a node with y_scale gives y, and one without gives y_float");
    DeviceBuffer quantized;
    if (from_planes_) {
      quantized = allocate(context, x.size());
      image.x = quantized.as<uint8_t>();
      cuda::quantize_channels_last({x.as<float>(), quantized.as<uint8_t>(), image.batch, image.height * image.width,
                                    layer_.channels(), x_scale_, epilogue_.x_zero},
                                   context.stream());
    }
    layer_.run(context, *this, image, epilogue);
  }

 private:
  static cuda::ConvolutionFilters checked_filters(const Info& info) {
    const Tensor w = info.constant(kConvW, kS8, "w");
    require(w.rank() == 4 && w.size() > 0, "w must be [M, kh, kw, C/group]");
    constexpr int64_t kMostChannels = 1 << 24, kMostKernel = 65536;
    require(w.dim(0) < kMostChannels && w.dim(3) < kMostChannels, "w has too many channels");
    require(w.dim(1) <= kMostKernel && w.dim(2) <= kMostKernel, "the kernel's size is out of range");
    const int64_t groups = info.integer("group", 1);
    require(groups >= 1 && groups <= w.dim(0) && w.dim(0) % groups == 0, "group must divide the output channels");
    require(groups * w.dim(3) < kMostChannels, "w has too many channels");
    const auto size = [](int64_t value) { return static_cast<int>(value); };
    return {size(w.dim(0)), size(w.dim(1)), size(w.dim(2)), size(w.dim(3)), size(groups)};
  }

  static cuda::ConvolutionFilters with_dilation(cuda::ConvolutionFilters filters, const Window& window) {
    filters.dilation_y = window.dilation_h, filters.dilation_x = window.dilation_w;
    return filters;
  }

  void read_epilogue(const Info& info) {
    const int m = filters_.outputs;
    const Tensor w_scale = info.constant(kConvWScale, kF32, "w_scale");
    require(w_scale.size() == 1 || w_scale.size() == m, "w_scale must have 1 or M values");
    const auto bias = info.constant(kConvBias), table = info.constant(kConvTable);
    require(!bias || (bias->type == kF32 && bias->size() == m), "bias must have M floats");
    require(!table || (table->type == kU8 && table->size() == 256), "table must have 256 bytes");
    cuda::Epilogue& e = epilogue_;
    to_bytes_ = info.constant(kConvYScale).has_value();
    e.residual_after = info.integer("residual_after", 0) != 0;
    require(to_bytes_ || (!table && !e.residual_after), "a table and residual_after need y_scale");
    std::vector<float> scale(m);
    for (int o = 0; o < m; o++) scale[o] = x_scale_ * w_scale.as<float>()[w_scale.size() == 1 ? 0 : o];
    scale_ = upload(scale);
    if (bias) bias_ = upload(bias->as<float>(), m);
    if (table) table_ = upload(table->as<uint8_t>(), 256);
    e.columns = m, e.x_zero = info.zero_point(kConvXZero, "x_zero_point", 0);
    e.weight_sums = layer_.weight_sums(), e.scale = scale_.as<float>(), e.bias = bias_.as<float>();
    e.table = table_.as<uint8_t>();
    e.residual_scale = info.scalar(kConvResidualScale, "residual_scale", 0);
    e.residual_zero = info.zero_point(kConvResidualZero, "residual_zero_point", 0);
    e.y_inverse = 1 / info.scalar(kConvYScale, "y_scale", 1);
    e.y_zero = info.zero_point(kConvYZero, "y_zero_point", 0);
    if (!e.residual_after) return;
    const float final_scale = info.scalar(kConvFinalScale, "final_scale", 0);
    e.inner_scale = info.scalar(kConvInnerScale, "inner_scale", 0);
    require(final_scale > 0 && e.inner_scale > 0,
            "residual_after needs inner_scale and final_scale, both positive");
    e.inner_zero = info.zero_point(kConvInnerZero, "inner_zero_point", 0);
    e.final_inverse = 1 / final_scale, e.final_zero = info.zero_point(kConvFinalZero, "final_zero_point", 0);
  }

  cuda::ConvolutionFilters filters_;
  Window window_;
  ConvolutionLayer layer_;
  bool from_planes_, to_planes_ = false, to_bytes_ = false;
  float x_scale_;
  cuda::Epilogue epilogue_;
  DeviceBuffer scale_, bias_, table_;
  bool constant_[kConvFinalZero + 1] = {};
};

}  // namespace

OpDefinition qconv_on_device() {
  std::vector<size_t> host;
  for (size_t i = kConvXScale; i <= kConvFinalZero; i++)
    if (i != kConvResidual) host.push_back(i);
  return on_device(qconv(), make<QConvOnDevice>, std::move(host));
}

}  // namespace oc
