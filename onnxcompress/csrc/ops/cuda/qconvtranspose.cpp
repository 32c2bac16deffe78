// Products of every pixel by every tap come from the linear kernels; a second kernel adds up what falls on a pixel.
#include "cuda/transposed.hpp"
#include "ops/cuda/dense_weights.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW, kWScale, kBias, kYScale, kYZero, kTable };

constexpr int64_t kMostSize = 1 << 24;

std::vector<int64_t> list(const Info& info, const char* name, std::initializer_list<int64_t> fallback, int64_t least) {
  const auto values = info.integers(name, fallback);
  require(values.size() == fallback.size(), "strides, pads and output_padding must have 2, 4 and 2 values");
  for (int64_t v : values)
    require(v >= least && v < kMostSize, "strides, pads or output_padding are out of range");
  return values;
}

// The weights [M, kh, kw, C] with the outputs of a tap side by side: [kh, kw, M, C].
std::vector<int8_t> by_tap(const Tensor& w) {
  const int64_t m = w.dim(0), taps = w.dim(1) * w.dim(2), c = w.dim(3);
  std::vector<int8_t> result(w.size());
  for (int64_t o = 0; o < m; o++)
    for (int64_t t = 0; t < taps; t++)
      std::memcpy(result.data() + (t * m + o) * c, w.as<int8_t>() + (o * taps + t) * c, c);
  return result;
}

class QConvTransposeOnDevice : public DeviceKernel {
 public:
  explicit QConvTransposeOnDevice(const Info& info) : DeviceKernel(info) {
    const Tensor w = info.constant(kW, kS8, "w");
    require(w.rank() == 4 && w.size() > 0, "w must be [M, kh, kw, C]");
    m_ = w.dim(0), kh_ = w.dim(1), kw_ = w.dim(2), c_ = w.dim(3);
    require(c_ < 65536, "w has too many channels");
    require(w.size() / c_ < kMostSize, "w has too many taps");
    strides_ = list(info, "strides", {1, 1}, 1), pads_ = list(info, "pads", {0, 0, 0, 0}, 0);
    extra_ = list(info, "output_padding", {0, 0}, 0);
    require(extra_[0] < strides_[0] && extra_[1] < strides_[1], "output_padding must be less than strides");
    const std::string layout = info.text("y_layout", "NHWC");
    require(layout == "NHWC" || layout == "NCHW", "y_layout must be NHWC or NCHW");
    weights_.emplace(*this, by_tap(w).data(), kh_ * kw_ * m_, c_);
    read_scales(info);
    end_.planes = layout == "NCHW" && !to_bytes_;
    end_.outputs = static_cast<int>(m_), end_.kernel_h = static_cast<int>(kh_), end_.kernel_w = static_cast<int>(kw_);
    end_.stride_y = strides_[0], end_.stride_x = strides_[1], end_.top = pads_[0], end_.left = pads_[1];
  }

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4 && x.type == kU8, "x must be uint8 in NHWC");
    require(x.dim(3) == c_, "the channels of x are not those of w");
    for (size_t i = kBias; i <= kTable; i++)
      require(context.has(i) == constant_[i], "only x may be computed at run time");
    cuda::GatherTransposed end = end_;
    end.images = x.dim(0), end.height = x.dim(1), end.width = x.dim(2);
    require(end.height < kMostSize && end.width < kMostSize, "the image is too large");
    const auto out = [&](int64_t in, int axis, int64_t kernel) {
      return in == 0 ? 0 : (in - 1) * strides_[axis] + kernel - pads_[axis] - pads_[axis + 2] + extra_[axis];
    };
    end.out_height = out(end.height, 0, kh_), end.out_width = out(end.width, 1, kw_);
    require(end.out_height >= 0 && end.out_width >= 0, "pads are larger than the result");
    std::vector<int64_t> shape = {end.images, end.out_height, end.out_width, m_};
    if (end.planes) shape = {end.images, m_, end.out_height, end.out_width};
    const Tensor y = context.output(0, shape, kU8), y_float = context.output(1, shape, kF32);
    if (y.size() == 0) return;
    require(to_bytes_ ? y.data && !y_float.data : y_float.data && !y.data,
            "a node with y_scale gives y, and one without gives y_float");
    const int64_t pixels = x.size() / c_;
    require(pixels <= INT32_MAX - 64, "the image is too large");
    const DeviceBuffer products = allocate(context, pixels * weights_->n() * sizeof(float));
    cuda::Epilogue epilogue = epilogue_;
    epilogue.y_float = products.as<float>();
    weights_->multiply(context, *this, x.as<uint8_t>(), pixels, epilogue);
    end.products = products.as<float>(), end.y = y.as<uint8_t>(), end.y_float = y_float.as<float>();
    cuda::gather_transposed(end, context.stream());
  }

 private:
  void read_scales(const Info& info) {
    for (size_t i = kBias; i <= kTable; i++) constant_[i] = info.constant(i).has_value();
    const float x_scale = info.scalar(kXScale, "x_scale", 1), y_scale = info.scalar(kYScale, "y_scale", 1);
    require(x_scale > 0 && y_scale > 0, "scales must be positive");
    const Tensor w_scale = info.constant(kWScale, kF32, "w_scale");
    require(w_scale.size() == 1 || w_scale.size() == m_, "w_scale must have 1 or M values");
    const auto bias = info.constant(kBias), table = info.constant(kTable);
    require(!bias || (bias->type == kF32 && bias->size() == m_), "bias must have M floats");
    require(!table || (table->type == kU8 && table->size() == 256), "table must have 256 bytes");
    to_bytes_ = info.constant(kYScale).has_value();
    require(to_bytes_ || !table, "a table needs y_scale");
    std::vector<float> scale(weights_->n());
    for (size_t i = 0; i < scale.size(); i++)
      scale[i] = x_scale * w_scale.as<float>()[w_scale.size() == 1 ? 0 : i % m_];
    scale_ = upload(scale), sums_ = upload(weights_->sums());
    if (bias) bias_ = upload(bias->as<float>(), m_);
    if (table) table_ = upload(table->as<uint8_t>(), 256);
    epilogue_.columns = weights_->n(), epilogue_.x_zero = info.zero_point(kXZero, "x_zero_point", 0);
    epilogue_.weight_sums = sums_.as<int32_t>(), epilogue_.scale = scale_.as<float>();
    end_.bias = bias_.as<float>(), end_.table = table_.as<uint8_t>();
    end_.inverse = 1 / y_scale, end_.zero = info.zero_point(kYZero, "y_zero_point", 0);
  }

  int64_t m_ = 0, kh_ = 0, kw_ = 0, c_ = 0;
  std::vector<int64_t> strides_, pads_, extra_;
  std::optional<DenseWeights> weights_;
  bool to_bytes_ = false;
  bool constant_[kTable + 1] = {};
  cuda::Epilogue epilogue_;
  cuda::GatherTransposed end_;
  DeviceBuffer scale_, sums_, bias_, table_;
};

}  // namespace

OpDefinition qconvtranspose_on_device() {
  return on_device(qconvtranspose(), make<QConvTransposeOnDevice>,
                   {kXScale, kXZero, kW, kWScale, kBias, kYScale, kYZero, kTable});
}

}  // namespace oc
