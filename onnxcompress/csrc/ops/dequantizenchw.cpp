// DequantizeNCHW: the exit of the quantized layout, to floats with channels outermost.
#include "cpu/layout.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

struct DequantizeNCHW : Kernel {
  float scale;
  int zero_point;
  std::optional<Tensor> values;

  explicit DequantizeNCHW(const Info& info)
      : scale(info.scalar(1, "x_scale", 1)), zero_point(info.zero_point(2, "x_zero_point", 0)),
        values(info.constant(3)) {
    require(!values || (values->type == kF32 && values->size() == 256), "values must be 256 floats");
  }

  void compute(Context& context) override {
    const Tensor x = context.input(0);
    require(x.rank() == 4, "x must be [N, H, W, C]");
    const int64_t c = x.dim(3), pixels = x.dim(1) * x.dim(2);
    const Tensor y = context.output(0, {x.dim(0), c, x.dim(1), x.dim(2)}, kF32);
    if (y.size() == 0) return;
    const int64_t block = c == 1 ? 1 << 14 : kLayoutPixels, blocks = (pixels + block - 1) / block;
    context.parallel(x.dim(0) * blocks, [&](size_t i) {
      const int64_t n = i / blocks, begin = i % blocks * block;
      const uint8_t* from = x.as<uint8_t>() + (n * pixels + begin) * c;
      float* to = y.as<float>() + n * c * pixels + begin;
      const int count = static_cast<int>(std::min(block, pixels - begin)), channels = static_cast<int>(c);
      if (values) layout().look_up(from, count, channels, values->as<float>(), to, pixels);
      else layout().dequantize(from, count, channels, scale, zero_point, to, pixels);
    });
  }
};

}  // namespace

OpDefinition dequantizenchw() {
  return {"DequantizeNCHW", {{kU8}, {kF32}, {kU8}, {kF32, optional}}, {{kF32}}, make<DequantizeNCHW>};
}

}  // namespace oc
