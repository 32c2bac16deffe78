#include "cuda/layout.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

namespace {

enum In { kX, kYScale, kYZero };

struct QuantizeNHWCOnDevice : DeviceKernel {
  float scale;
  int zero_point;

  explicit QuantizeNHWCOnDevice(const Info& info)
      : DeviceKernel(info), scale(info.scalar(kYScale, "y_scale", 1)),
        zero_point(info.zero_point(kYZero, "y_zero_point", 0)) {}

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4, "x must be [N, C, H, W]");
    const Tensor y = context.output(0, {x.dim(0), x.dim(2), x.dim(3), x.dim(1)}, kU8);
    cuda::quantize_channels_last({x.as<float>(), y.as<uint8_t>(), x.dim(0), x.dim(2) * x.dim(3), x.dim(1), scale,
                                  zero_point},
                                 context.stream());
  }
};

}  // namespace

OpDefinition quantizenhwc_on_device() {
  return on_device(quantizenhwc(), make<QuantizeNHWCOnDevice>, {kYScale, kYZero});
}

}  // namespace oc
