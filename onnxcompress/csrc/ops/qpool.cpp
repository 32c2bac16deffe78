// QPool: the greatest or the mean of windows of an image, or the mean of all of it.
#include <cmath>

#include "cpu/pool.hpp"
#include "ops/buffer.hpp"
#include "ops/pool_windows.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kYScale, kYZero, kTable };

constexpr int64_t kMostLine = 1 << 26;  // values of a padded row

struct QPool : Kernel {
  double ratio;
  int x_zero, y_zero;
  std::string mode;
  PoolWindows down, across;
  bool ceil_mode = false, include_pad;
  std::optional<Tensor> table;

  explicit QPool(const Info& info)
      : x_zero(info.zero_point(kXZero, "x_zero_point", 0)), y_zero(info.zero_point(kYZero, "y_zero_point", 0)),
        mode(info.text("mode", "max")), include_pad(info.integer("count_include_pad", 0) != 0),
        table(info.constant(kTable)) {
    ratio = static_cast<double>(info.scalar(kXScale, "x_scale", 1)) / info.scalar(kYScale, "y_scale", 1);
    require(!table || (table->type == kU8 && table->size() == 256), "table must be 256 bytes");
    require(mode == "max" || mode == "average" || mode == "global_average",
            "mode must be max, average or global_average");
    if (mode == "global_average") return;
    require(mode == "average" || (ratio == 1 && x_zero == y_zero), "max needs equal parameters of x and y");
    const PoolShape shape(info);
    down = shape.down, across = shape.across, ceil_mode = shape.ceil_mode;
  }

  const uint8_t* look() const { return table ? table->as<uint8_t>() : nullptr; }

  void compute(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4, "x must be [N, H, W, C]");
    if (mode == "global_average") return global(context, x);
    const int64_t h = x.dim(1), w = x.dim(2), c = x.dim(3);
    require(h > 0 && w > 0, "the image is empty");
    const int64_t rows = down.count(h, ceil_mode), columns = across.count(w, ceil_mode);
    require(rows >= 0 && columns >= 0, "kernel_shape is larger than the padded image");
    const Tensor y = context.output(0, {x.dim(0), rows, columns, c}, kU8);
    if (y.size() == 0) return;
    require(padded_width(columns, w) <= kMostLine / c, "kernel_shape is too large for images of so many channels");
    const PoolColumns shape{static_cast<int>(columns), static_cast<int>(across.kernel), static_cast<int>(c),
                            static_cast<ptrdiff_t>(across.stride * c), look()};
    const int64_t step = std::max<int64_t>(1, (1 << 15) / (columns * c)), all = x.dim(0) * rows;
    context.parallel((all + step - 1) / step, [&](size_t i) {
      for (int64_t r = i * step; r < std::min<int64_t>(all, (i + 1) * step); r++) {
        const uint8_t* image = x.as<uint8_t>() + r / rows * h * w * c;
        uint8_t* to = y.as<uint8_t>() + r * columns * c;
        if (mode == "max") max_row(shape, image, h, w, r % rows, to);
        else average_row(shape, image, h, w, r % rows, to);
      }
    });
  }

  // Bytes of scratch: a row of the image with room for the windows that reach beyond it.
  int64_t padded_width(int64_t windows, int64_t w) const {
    return std::max(w + across.before, (windows - 1) * across.stride + across.kernel);
  }

  void max_row(const PoolColumns& shape, const uint8_t* image, int64_t h, int64_t w, int64_t row, uint8_t* y) const {
    const int64_t c = shape.channels, width = padded_width(shape.windows, w);
    const int64_t top = std::max<int64_t>(down.begin(row), 0);
    uint8_t* line = scratch(0, width * c);
    std::memset(line, 0, across.before * c);  // the least value: padding is never the greatest
    std::memset(line + (across.before + w) * c, 0, (width - across.before - w) * c);
    pool().max_rows(image + top * w * c, w * c, static_cast<int>(down.valid(row, h)), line + across.before * c, w * c);
    pool().max_columns(shape, line, y);
  }

  void average_row(const PoolColumns& shape, const uint8_t* image, int64_t h, int64_t w, int64_t row,
                   uint8_t* y) const {
    const int64_t c = shape.channels, width = padded_width(shape.windows, w);
    const int64_t top = std::max<int64_t>(down.begin(row), 0);
    auto* line = reinterpret_cast<int32_t*>(scratch(0, width * c * sizeof(int32_t)));
    std::fill_n(line, across.before * c, 0);
    std::fill_n(line + (across.before + w) * c, (width - across.before - w) * c, 0);
    pool().sum_rows(image + top * w * c, w * c, static_cast<int>(down.valid(row, h)), line + across.before * c, w * c);
    auto* scale = reinterpret_cast<float*>(scratch(1, sizeof(float) * shape.windows));
    auto* zero = reinterpret_cast<int32_t*>(scratch(2, sizeof(int32_t) * shape.windows));
    for (int64_t j = 0; j < shape.windows; j++) {
      const int64_t valid = down.valid(row, h) * across.valid(j, w);
      const int64_t count = include_pad ? down.padded(row, h) * across.padded(j, w) : valid;
      scale[j] = static_cast<float>(ratio / count);
      zero[j] = static_cast<int32_t>(valid * x_zero);
    }
    pool().average_columns(shape, line, scale, zero, y_zero, y);
  }

  void global(Context& context, const Tensor& x) const {
    const int64_t pixels = x.dim(1) * x.dim(2), c = x.dim(3);
    const Tensor y = context.output(0, {x.dim(0), 1, 1, c}, kU8);
    if (y.size() == 0) return;
    require(pixels > 0 && pixels < (1 << 23), "the image is empty or larger than 8 million pixels");
    const float scale = static_cast<float>(ratio / pixels);
    const int32_t zero = static_cast<int32_t>(pixels * x_zero);
    context.parallel(x.dim(0), [&](size_t n) {
      auto* sums = reinterpret_cast<int32_t*>(scratch(0, c * sizeof(int32_t)));
      std::fill_n(sums, c, 0);
      pool().channel_sums(x.as<uint8_t>() + n * pixels * c, pixels, static_cast<int>(c), nullptr, sums);
      const PoolColumns one{1, 1, static_cast<int>(c), static_cast<ptrdiff_t>(c), look()};
      pool().average_columns(one, sums, &scale, &zero, y_zero, y.as<uint8_t>() + n * c);
    });
  }
};

}  // namespace

OpDefinition qpool() {
  return {"QPool", {{kU8}, {kF32}, {kU8}, {kF32}, {kU8}, {kU8, optional}}, {{kU8}}, make<QPool>};
}

}  // namespace oc
