// QResize: an image enlarged by whole factors, every pixel repeated.
#include "cpu/bytes.hpp"
#include "cpu/concat.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

struct QResize : Kernel {
  int64_t down, across;
  std::optional<Tensor> table;

  explicit QResize(const Info& info) : table(info.constant(1)) {
    const auto scales = info.integers("scales", {1, 1});
    require(scales.size() == 2, "scales must have 2 values");
    down = scales[0], across = scales[1];
    require(down >= 1 && across >= 1 && down <= 1 << 10 && across <= 1 << 10, "scales must be at least 1");
    require(!table || (table->type == kU8 && table->size() == 256), "table must be 256 bytes");
  }

  void compute(Context& context) override {
    const Tensor x = context.input(0);
    require(x.rank() == 4, "x must be [N, H, W, C]");
    const int64_t w = x.dim(2), c = x.dim(3), rows = x.dim(0) * x.dim(1), row = w * across * c;
    const Tensor y = context.output(0, {x.dim(0), x.dim(1) * down, w * across, c}, kU8);
    if (y.size() == 0) return;
    const uint8_t* look = table ? table->as<uint8_t>() : nullptr;
    const int64_t step = std::max<int64_t>(1, (1 << 16) / (row * down));
    context.parallel((rows + step - 1) / step, [&](size_t i) {
      for (int64_t r = i * step; r < std::min<int64_t>(rows, (i + 1) * step); r++) {
        const uint8_t* from = x.as<uint8_t>() + r * w * c;
        uint8_t* to = y.as<uint8_t>() + r * down * row;
        const int width = static_cast<int>(w), channels = static_cast<int>(c), repeat = static_cast<int>(across);
        if (across > 1) concat().place(from, width, channels, repeat, to, c, look);
        else if (look) bytes().table(from, look, to, row);
        else std::memcpy(to, from, row);
        for (int64_t d = 1; d < down; d++) std::memcpy(to + d * row, to, row);
      }
    });
  }
};

}  // namespace

OpDefinition qresize() { return {"QResize", {{kU8}, {kU8, optional}}, {{kU8}}, make<QResize>}; }

}  // namespace oc
