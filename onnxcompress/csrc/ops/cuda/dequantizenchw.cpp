#include "cuda/layout.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kValues };

struct DequantizeNCHWOnDevice : DeviceKernel {
  float scale;
  int zero_point;
  DeviceBuffer values;

  explicit DequantizeNCHWOnDevice(const Info& info)
      : DeviceKernel(info), scale(info.scalar(kXScale, "x_scale", 1)),
        zero_point(info.zero_point(kXZero, "x_zero_point", 0)) {
    const auto given = info.constant(kValues);
    require(!given || (given->type == kF32 && given->size() == 256), "values must be 256 floats");
    if (given) values = upload(given->as<float>(), 256);
  }

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4, "x must be [N, H, W, C]");
    const Tensor y = context.output(0, {x.dim(0), x.dim(3), x.dim(1), x.dim(2)}, kF32);
    cuda::dequantize_channels_first({x.as<uint8_t>(), y.as<float>(), x.dim(0), x.dim(1) * x.dim(2), x.dim(3), scale,
                                     zero_point, values.as<float>()},
                                    context.stream());
  }
};

}  // namespace

OpDefinition dequantizenchw_on_device() {
  return on_device(dequantizenchw(), make<DequantizeNCHWOnDevice>, {kXScale, kXZero, kValues});
}

}  // namespace oc
