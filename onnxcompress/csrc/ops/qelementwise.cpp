// QElementwise: sum, difference or product of a quantized tensor and another one, or a value per channel.
#include <algorithm>
#include <cmath>

#include "cpu/concat.hpp"
#include "cpu/elementwise.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

enum In { kA, kAScale, kAZero, kB, kBScale, kBZero, kYScale, kYZero, kTable };

constexpr int64_t kPiece = 1 << 16;

// What is larger saturates just as well, and its sums stay within 32 bits. Not-a-number stays.
double bounded(double x, double most = kMostFactor) { return std::isnan(x) ? x : std::clamp(x, -most, most); }

struct QElementwise : Kernel {
  float a_scale, b_scale, y_scale;
  int a_zero, b_zero, y_zero;
  bool product = false;
  float sign = 1;
  int upsample;
  std::optional<Tensor> table;

  explicit QElementwise(const Info& info)
      : a_scale(info.scalar(kAScale, "a_scale", 1)), b_scale(info.scalar(kBScale, "b_scale", 1)),
        y_scale(info.scalar(kYScale, "y_scale", 1)), a_zero(info.zero_point(kAZero, "a_zero_point", 0)),
        b_zero(info.zero_point(kBZero, "b_zero_point", 0)), y_zero(info.zero_point(kYZero, "y_zero_point", 0)),
        upsample(static_cast<int>(info.integer("upsample", 1))), table(info.constant(kTable)) {
    const std::string operation = info.text("operation", "add");
    require(operation == "add" || operation == "sub" || operation == "mul", "operation must be add, sub or mul");
    product = operation == "mul", sign = operation == "sub" ? -1.f : 1.f;
    require(upsample >= 1 && upsample <= 1 << 10, "upsample must be at least 1");
    require(!table || (table->type == kU8 && table->size() == 256), "table must be 256 bytes");
  }

  const uint8_t* look() const { return table ? table->as<uint8_t>() : nullptr; }

  void compute(Context& context) override {
    const Tensor a = context.input(kA), b = context.input(kB);
    require(b.type == kU8 || b.type == kF32, "b must be uint8 or float");
    const Tensor y = context.output(0, a.shape, kU8);
    if (a.size() == 0) return check_empty(a, b);
    if (upsample > 1) upsampled(context, a, b, y);
    else if (a.shape == b.shape) same_shape(context, a, b, y);
    else per_channel(context, a, b, y);
  }

  // Whatever b's values are, its shape must fit.
  void check_empty(const Tensor& a, const Tensor& b) const {
    require(a.rank() >= 1 && b.rank() == a.rank() && b.dim(-1) == a.dim(-1), "b does not fit a");
  }

  Combination combination(ElementType b_type) const {
    const bool quantized = b_type == kU8;
    const double zero = quantized ? b_zero : 0, a = double{a_scale} / y_scale, b = quantized ? b_scale : 1;
    Combination c{};
    c.y_zero = y_zero, c.table = look(), c.b_zero = static_cast<float>(zero);
    if (product) {
      const double factor = quantized ? bounded(a * b, kMostFactor / 256) : a;
      c.a_scale = static_cast<float>(factor), c.offset = static_cast<float>(-a_zero * factor);
    } else {
      const double left = bounded(a), right = quantized ? bounded(sign * b / y_scale) : sign / y_scale;
      c.a_scale = static_cast<float>(left), c.b_scale = static_cast<float>(right);
      c.offset = static_cast<float>(-a_zero * left - zero * right);
    }
    return c;
  }

  void same_shape(Context& context, const Tensor& a, const Tensor& b, const Tensor& y) const {
    const Combination c = combination(b.type);
    const int64_t size = a.size();
    context.parallel((size + kPiece - 1) / kPiece, [&](size_t i) {
      const int64_t begin = i * kPiece;
      run(c, a.as<uint8_t>() + begin, b, begin, y.as<uint8_t>() + begin, std::min(kPiece, size - begin));
    });
  }

  void run(const Combination& c, const uint8_t* a, const Tensor& b, int64_t b_begin, uint8_t* y, size_t count) const {
    const auto& kernels = elementwise();
    if (b.type == kF32) (product ? kernels.mul_float : kernels.add_float)(c, a, b.as<float>() + b_begin, y, count);
    else (product ? kernels.mul : kernels.add)(c, a, b.as<uint8_t>() + b_begin, y, count);
  }

  // b is [N or 1, 1, ..., 1, C]: then y = a * scale[c] + offset[c].
  void per_channel(Context& context, const Tensor& a, const Tensor& b, const Tensor& y) const {
    const int64_t c = a.rank() ? a.dim(-1) : 1, images = a.rank() > 1 ? a.dim(0) : 1;
    const int64_t b_images = b.rank() ? b.size() / c : 0;
    bool fits = b.rank() == a.rank() && a.rank() > 1 && b.dim(-1) == c && (b.dim(0) == images || b.dim(0) == 1);
    for (int d = 1; d + 1 < b.rank(); d++) fits = fits && b.dim(d) == 1;
    require(fits, "b must have the shape of a, [N, 1, ..., C], or be smaller by the factor upsample");
    const int64_t row = c + kAffinePad;
    Buffer<float> shared(b_images == 1 ? 2 * row : 0);
    if (b_images == 1) factors(b, 0, c, shared.data(), shared.data() + row);
    const int64_t pixels = a.size() / images / c, step = std::max<int64_t>(1, kPiece / c);
    const int64_t pieces = (pixels + step - 1) / step;
    context.parallel(images * pieces, [&](size_t i) {
      const int64_t n = i / pieces, begin = i % pieces * step, at = (n * pixels + begin) * c;
      float* scale = shared.data();
      if (b_images > 1) {
        scale = reinterpret_cast<float*>(scratch(0, 2 * row * sizeof(float)));
        factors(b, n, c, scale, scale + row);
      }
      const Affine affine{scale, scale + row, static_cast<int>(c), y_zero, nullptr, look()};
      elementwise().affine(affine, a.as<uint8_t>() + at, y.as<uint8_t>() + at, std::min(step, pixels - begin) * c);
    });
  }

  void factors(const Tensor& b, int64_t n, int64_t c, float* scale, float* offset) const {
    const double ratio = double{a_scale} / y_scale;
    for (int64_t i = 0; i < c + kAffinePad; i++) {
      const int64_t at = n * c + i % c;
      const double value = b.type == kF32 ? b.as<float>()[at] : (b.as<uint8_t>()[at] - b_zero) * double{b_scale};
      const double factor = bounded(product ? ratio * value : ratio);
      scale[i] = static_cast<float>(factor);
      offset[i] = static_cast<float>((product ? 0. : bounded(sign * value / y_scale)) - a_zero * factor);
    }
  }

  void upsampled(Context& context, const Tensor& a, const Tensor& b, const Tensor& y) const {
    require(b.type == kU8, "an upsampled b must be uint8");
    const bool fits = a.rank() == 4 && b.rank() == 4 && b.dim(0) == a.dim(0) && b.dim(3) == a.dim(3) &&
                      b.dim(1) * upsample == a.dim(1) && b.dim(2) * upsample == a.dim(2);
    require(fits, "b must be smaller than a by the factor upsample");
    const Combination c = combination(kU8);
    const int width = static_cast<int>(b.dim(2)), channels = static_cast<int>(a.dim(3));
    const int64_t b_row = b.dim(2) * channels, row = a.dim(2) * channels, rows = b.dim(0) * b.dim(1);
    const int64_t step = std::max<int64_t>(1, kPiece / (row * upsample));
    context.parallel((rows + step - 1) / step, [&](size_t i) {
      uint8_t* wide = scratch(0, row);  // one row of b, every pixel repeated
      for (int64_t r = i * step; r < std::min<int64_t>(rows, (i + 1) * step); r++) {
        concat().place(b.as<uint8_t>() + r * b_row, width, channels, upsample, wide, channels, nullptr);
        const Tensor repeated{wide, kU8, {}};
        for (int u = 0; u < upsample; u++) {
          const int64_t at = (r * upsample + u) * row;
          run(c, a.as<uint8_t>() + at, repeated, 0, y.as<uint8_t>() + at, row);
        }
      }
    });
  }
};

}  // namespace

OpDefinition qelementwise() {
  return {"QElementwise",
          {{kU8}, {kF32}, {kU8}, {kAny}, {kF32, optional}, {kU8, optional}, {kF32}, {kU8}, {kU8, optional}},
          {{kU8}},
          make<QElementwise>};
}

}  // namespace oc
