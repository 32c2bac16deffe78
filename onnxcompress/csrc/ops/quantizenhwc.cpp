// QuantizeNHWC: the entry of the quantized layout, from floats with channels outermost.
#include "cpu/layout.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

struct QuantizeNHWC : Kernel {
  float scale;
  int zero_point;

  explicit QuantizeNHWC(const Info& info)
      : scale(info.scalar(1, "y_scale", 1)),
        zero_point(info.zero_point(2, "y_zero_point", 0)) {}

  void compute(Context& context) override {
    const Tensor x = context.input(0);
    require(x.rank() == 4, "x must be [N, C, H, W]");
    const int64_t c = x.dim(1), pixels = x.dim(2) * x.dim(3);
    const Tensor y = context.output(0, {x.dim(0), x.dim(2), x.dim(3), c}, kU8);
    if (y.size() == 0) return;
    const int64_t block = c == 1 ? 1 << 14 : kLayoutPixels, blocks = (pixels + block - 1) / block;
    context.parallel(x.dim(0) * blocks, [&](size_t i) {
      const int64_t n = i / blocks, begin = i % blocks * block;
      layout().quantize(x.as<float>() + n * c * pixels + begin, pixels,
                        static_cast<int>(std::min(block, pixels - begin)), static_cast<int>(c), scale, zero_point,
                        y.as<uint8_t>() + (n * pixels + begin) * c);
    });
  }
};

}  // namespace

OpDefinition quantizenhwc() { return {"QuantizeNHWC", {{kF32}, {kF32}, {kU8}}, {{kU8}}, make<QuantizeNHWC>}; }

}  // namespace oc
