#include "cuda/pool.hpp"
#include "ops/cuda/byte_table.hpp"
#include "ops/pool_windows.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kYScale, kYZero, kTable };

cuda::PoolAxis axis_of(const PoolWindows& windows, int64_t size, int64_t count) {
  return {size, count, windows.kernel, windows.stride, windows.before, windows.after};
}

struct QPoolOnDevice : DeviceKernel {
  cuda::PoolScale scale;
  std::string mode;
  std::optional<PoolShape> windows;  // of an image that is not one as a whole
  bool include_pad;
  DeviceBuffer table;

  explicit QPoolOnDevice(const Info& info)
      : DeviceKernel(info), mode(info.text("mode", "max")), include_pad(info.integer("count_include_pad", 0) != 0),
        table(optional_table(info, *this, kTable)) {
    const double ratio = static_cast<double>(info.scalar(kXScale, "x_scale", 1)) / info.scalar(kYScale, "y_scale", 1);
    scale = {static_cast<float>(ratio), info.zero_point(kXZero, "x_zero_point", 0),
             info.zero_point(kYZero, "y_zero_point", 0)};
    require(mode == "max" || mode == "average" || mode == "global_average",
            "mode must be max, average or global_average");
    require(mode != "max" || (ratio == 1 && scale.x_zero == scale.y_zero), "max needs equal parameters of x and y");
    if (mode != "global_average") windows.emplace(info);
  }

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4, "x must be [N, H, W, C]");
    if (!windows) return global(context, x);
    const int64_t h = x.dim(1), w = x.dim(2);
    require(h > 0 && w > 0, "the image is empty");
    const int64_t rows = windows->down.count(h, windows->ceil_mode),
                  columns = windows->across.count(w, windows->ceil_mode);
    require(rows >= 0 && columns >= 0, "kernel_shape is larger than the padded image");
    const Tensor y = context.output(0, {x.dim(0), rows, columns, x.dim(3)}, kU8);
    cuda::Pool p;
    p.x = x.as<uint8_t>(), p.y = y.as<uint8_t>(), p.table = table.as<uint8_t>();
    p.images = x.dim(0), p.channels = x.dim(3);
    p.down = axis_of(windows->down, h, rows), p.across = axis_of(windows->across, w, columns);
    p.average = mode == "average", p.include_pad = include_pad, p.scale = scale;
    cuda::pool(p, context.stream());
  }

  void global(Context& context, const Tensor& x) const {
    const Tensor y = context.output(0, {x.dim(0), 1, 1, x.dim(3)}, kU8);
    if (y.size() == 0) return;
    const int64_t pixels = x.dim(1) * x.dim(2);
    require(pixels > 0 && pixels < (1 << 23), "the image is empty or larger than 8 million pixels");
    cuda::GlobalPool p;
    p.sums.x = x.as<uint8_t>(), p.sums.images = x.dim(0), p.sums.pixels = pixels, p.sums.channels = x.dim(3);
    p.sums.parts = cuda::parts_of_image(x.dim(0), pixels, x.dim(3), multiprocessors());
    const DeviceBuffer sums = allocate(context, p.sums.parts > 1 ? p.sums.parts * y.size() * sizeof(int32_t) : 0);
    p.sums.sums = sums.as<int32_t>();
    p.y = y.as<uint8_t>(), p.table = table.as<uint8_t>(), p.scale = scale;
    cuda::global_pool(p, context.stream());
  }
};

}  // namespace

OpDefinition qpool_on_device() {
  return on_device(qpool(), make<QPoolOnDevice>, {kXScale, kXZero, kYScale, kYZero, kTable});
}

}  // namespace oc
