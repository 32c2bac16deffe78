#include "cuda/table.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

namespace {

enum In { kX, kTable };

struct QTableOnDevice : DeviceKernel {
  DeviceBuffer table;

  explicit QTableOnDevice(const Info& info) : DeviceKernel(info) {
    const Tensor t = info.constant(kTable, kU8, "table");
    require(t.size() == cuda::kTableBytes, "table must have 256 values");
    table = upload(t.as<uint8_t>(), cuda::kTableBytes);
  }

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    const Tensor y = context.output(0, x.shape, kU8);
    cuda::apply_table({x.as<uint8_t>(), y.as<uint8_t>(), x.size(), table.as<uint8_t>()}, context.stream());
  }
};

}  // namespace

OpDefinition qtable_on_device() { return on_device(qtable(), make<QTableOnDevice>, {kTable}); }

}  // namespace oc
