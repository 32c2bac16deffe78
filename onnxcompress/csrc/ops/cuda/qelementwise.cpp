#include "cuda/elementwise.hpp"
#include "ops/cuda/byte_table.hpp"

namespace oc {

namespace {

enum In { kA, kAScale, kAZero, kB, kBScale, kBZero, kYScale, kYZero, kTable };

struct QElementwiseOnDevice : DeviceKernel {
  cuda::Elementwise constants;
  int64_t upsample;
  DeviceBuffer table;

  explicit QElementwiseOnDevice(const Info& info)
      : DeviceKernel(info), upsample(info.integer("upsample", 1)), table(optional_table(info, *this, kTable)) {
    const std::string operation = info.text("operation", "add");
    require(operation == "add" || operation == "sub" || operation == "mul", "operation must be add, sub or mul");
    require(upsample >= 1 && upsample <= 1 << 10, "upsample must be at least 1");
    constants.operation = operation == "add"   ? cuda::Operation::kAdd
                          : operation == "sub" ? cuda::Operation::kSubtract
                                               : cuda::Operation::kMultiply;
    constants.a_scale = info.scalar(kAScale, "a_scale", 1);
    constants.b_scale = info.scalar(kBScale, "b_scale", 1);
    constants.y_scale = info.scalar(kYScale, "y_scale", 1);
    constants.a_zero = info.zero_point(kAZero, "a_zero_point", 0);
    constants.b_zero = info.zero_point(kBZero, "b_zero_point", 0);
    constants.y_zero = info.zero_point(kYZero, "y_zero_point", 0);
    constants.table = table.as<uint8_t>();
  }

  void run(Context& context) override {
    const Tensor a = context.input(kA), b = context.input(kB);
    require(b.type == kU8 || b.type == kF32, "b must be uint8 or float");
    const Tensor y = context.output(0, a.shape, kU8);
    if (a.size() == 0) {
      require(a.rank() >= 1 && b.rank() == a.rank() && b.dim(-1) == a.dim(-1), "b does not fit a");
      return;
    }
    cuda::Elementwise e = constants;
    e.a = a.as<uint8_t>(), e.y = y.as<uint8_t>(), e.count = a.size();
    if (b.type == kF32) e.b_floats = b.as<float>();
    else e.b_bytes = b.as<uint8_t>();
    if (upsample > 1) fit_upsampled(a, b, e);
    else if (a.shape != b.shape) fit_channels(a, b, e);
    cuda::elementwise(e, context.stream());
  }

  // b is [N or 1, 1, ..., 1, C].
  static void fit_channels(const Tensor& a, const Tensor& b, cuda::Elementwise& e) {
    bool fits = b.rank() == a.rank() && a.rank() > 1 && b.dim(-1) == a.dim(-1) &&
                (b.dim(0) == a.dim(0) || b.dim(0) == 1);
    for (int d = 1; d + 1 < b.rank(); d++) fits = fits && b.dim(d) == 1;
    require(fits, "b must have the shape of a, [N, 1, ..., C], or be smaller by the factor upsample");
    e.channels = a.dim(-1);
    if (b.dim(0) > 1) e.image_pixels = a.size() / a.dim(0) / e.channels;
  }

  void fit_upsampled(const Tensor& a, const Tensor& b, cuda::Elementwise& e) const {
    require(b.type == kU8, "an upsampled b must be uint8");
    const bool fits = a.rank() == 4 && b.rank() == 4 && b.dim(0) == a.dim(0) && b.dim(3) == a.dim(3) &&
                      b.dim(1) * upsample == a.dim(1) && b.dim(2) * upsample == a.dim(2);
    require(fits, "b must be smaller than a by the factor upsample");
    e.channels = a.dim(3), e.upsample = upsample, e.width = a.dim(2);
  }
};

}  // namespace

OpDefinition qelementwise_on_device() {
  return on_device(qelementwise(), make<QElementwiseOnDevice>,
                   {kAScale, kAZero, kBScale, kBZero, kYScale, kYZero, kTable});
}

}  // namespace oc
