#include "cuda/concat.hpp"
#include "ops/cuda/byte_table.hpp"

namespace oc {

namespace {

enum In { kX, kTable };

struct QResizeOnDevice : DeviceKernel {
  int64_t down, across;
  DeviceBuffer table;

  explicit QResizeOnDevice(const Info& info) : DeviceKernel(info), table(optional_table(info, *this, kTable)) {
    const auto scales = info.integers("scales", {1, 1});
    require(scales.size() == 2, "scales must have 2 values");
    down = scales[0], across = scales[1];
    require(down >= 1 && across >= 1 && down <= 1 << 10 && across <= 1 << 10, "scales must be at least 1");
  }

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4, "x must be [N, H, W, C]");
    const Tensor y = context.output(0, {x.dim(0), x.dim(1) * down, x.dim(2) * across, x.dim(3)}, kU8);
    const cuda::PlacedImage image = {x.as<uint8_t>(), table.as<uint8_t>(), x.dim(3), down, across};
    cuda::place(&image, 1, {y.as<uint8_t>(), y.dim(0) * y.dim(1), y.dim(2)}, context.stream());
  }
};

}  // namespace

OpDefinition qresize_on_device() { return on_device(qresize(), make<QResizeOnDevice>, {kTable}); }

}  // namespace oc
