// QSqueezeExcite: the channels of an image, each scaled by a gate that two small layers compute from their means.
#include <cmath>

#include "cpu/elementwise.hpp"
#include "cpu/excite.hpp"
#include "cpu/pool.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW1, kW1Scale, kB1, kW2, kW2Scale, kB2, kYScale, kYZero, kTable };

constexpr int64_t kPiece = 1 << 16;

// A scale of 1 or n values, or a bias of n, as n of them and zeros up to `padded`.
Buffer<float> spread(const std::optional<Tensor>& x, int n, int padded, const char* name) {
  Buffer<float> values(padded);
  if (!x) return values;
  if (x->type != kF32 || (x->size() != 1 && x->size() != n)) throw Error(std::string(name) + " has a wrong shape");
  for (int i = 0; i < n; i++) values[i] = x->as<float>()[x->size() == 1 ? 0 : i];
  return values;
}

struct QSqueezeExcite : Kernel {
  double x_scale, y_scale;
  int x_zero, y_zero, channels = 0, hidden = 0, padded = 0;
  bool residual;
  Tensor w1;
  Buffer<int8_t> w2;
  Buffer<float> w1_scale, w2_scale, b1, b2;
  std::optional<Tensor> table;
  ExciteLayers layers{};

  explicit QSqueezeExcite(const Info& info)
      : x_scale(info.scalar(kXScale, "x_scale", 1)), y_scale(info.scalar(kYScale, "y_scale", 1)),
        x_zero(info.zero_point(kXZero, "x_zero_point", 0)), y_zero(info.zero_point(kYZero, "y_zero_point", 0)),
        residual(info.integer("residual", 0) != 0), w1(info.constant(kW1, kS8, "w1")), table(info.constant(kTable)) {
    const Tensor second = info.constant(kW2, kS8, "w2");
    require(w1.rank() == 2 && second.rank() == 2, "w1 must be [R, C] and w2 [C, R]");
    hidden = static_cast<int>(w1.dim(0)), channels = static_cast<int>(w1.dim(1));
    require(second.dim(0) == channels && second.dim(1) == hidden, "w2 must be [C, R] where w1 is [R, C]");
    require(hidden > 0 && channels > 0, "the layers are empty");
    require(hidden <= 1 << 24 && channels <= 1 << 24, "the layers are too large");
    require(!table || (table->type == kU8 && table->size() == 256), "table must be 256 bytes");
    padded = (channels + 15) / 16 * 16;
    w2 = Buffer<int8_t>(static_cast<size_t>(hidden) * padded);
    for (int c = 0; c < channels; c++)
      for (int r = 0; r < hidden; r++)
        w2[static_cast<size_t>(r) * padded + c] = second.as<int8_t>()[static_cast<size_t>(c) * hidden + r];
    w1_scale = spread(info.constant(kW1Scale), hidden, hidden, "w1_scale");
    w2_scale = spread(info.constant(kW2Scale), channels, padded, "w2_scale");
    b1 = spread(info.constant(kB1), hidden, hidden, "b1"), b2 = spread(info.constant(kB2), channels, padded, "b2");
    layers = {channels, padded, hidden, w1.as<int8_t>(), w1_scale.data(), b1.data(), w2.data(), w2_scale.data(),
              b2.data(), ExciteActivation::kRelu, ExciteGate::kSigmoid, info.real("alpha", 1.f / 6),
              info.real("beta", 0.5f)};
    const std::string activation = info.text("activation", "relu"), gate = info.text("gate", "hardsigmoid");
    if (activation == "silu") layers.activation = ExciteActivation::kSilu;
    else if (activation == "hardswish") layers.activation = ExciteActivation::kHardSwish;
    else require(activation == "relu", "activation must be relu, silu or hardswish");
    if (gate == "hardsigmoid") layers.gate = ExciteGate::kHardSigmoid;
    else require(gate == "sigmoid", "gate must be hardsigmoid or sigmoid");
  }

  const uint8_t* look() const { return table ? table->as<uint8_t>() : nullptr; }

  void compute(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4 && x.dim(3) == channels, "x must be [N, H, W, C] with the channels of w1");
    const Tensor y = context.output(0, x.shape, kU8);
    if (y.size() == 0) return;
    const int64_t pixels = x.dim(1) * x.dim(2), image = pixels * channels;
    require(pixels < (1 << 23), "the image is too large");
    constexpr int64_t kMostFloats = 1 << 20;  // factors of images that are at work: small images have many
    const int64_t together = std::max<int64_t>(1, kMostFloats / (padded + kAffinePad));
    for (int64_t first = 0; first < x.dim(0); first += together)
      excite_images(context, x.as<uint8_t>() + first * image, std::min(together, x.dim(0) - first), pixels,
                    y.as<uint8_t>() + first * image);
  }

  void excite_images(Context& context, const uint8_t* x, int64_t images, int64_t pixels, uint8_t* y) const {
    const int64_t image = pixels * channels;
    const int64_t step = std::max<int64_t>(1, kPiece / channels), pieces = (pixels + step - 1) / step;
    Buffer<int32_t> sums(images * pieces * channels);
    context.parallel(images * pieces, [&](size_t i) {
      const int64_t begin = i % pieces * step, count = std::min(step, pixels - begin);
      pool().channel_sums(x + i / pieces * image + begin * channels, count, channels, look(), &sums[i * channels]);
    });
    const int64_t row = padded + kAffinePad;
    Buffer<float> scale(images * row), offset(images * row);
    context.parallel(images, [&](size_t n) {
      factors(&sums[n * pieces * channels], pieces, pixels, &scale[n * row], &offset[n * row]);
    });
    context.parallel(images * pieces, [&](size_t i) {
      const int64_t n = i / pieces, begin = i % pieces * step, at = n * image + begin * channels;
      const Affine affine{&scale[n * row], &offset[n * row], channels, y_zero, look(), nullptr};
      const int64_t count = std::min(step, pixels - begin) * channels;
      elementwise().affine(affine, x + at, y + at, count);
    });
  }

  // From the sums of an image's pieces to its quantized scale and offset per channel.
  void factors(const int32_t* sums, int64_t pieces, int64_t pixels, float* scale, float* offset) const {
    auto* mean = reinterpret_cast<float*>(scratch(0, sizeof(float) * (2 * padded + hidden + 16)));
    float *gate = mean + padded, *between = gate + padded;
    for (int c = 0; c < channels; c++) {
      int64_t sum = 0;
      for (int64_t p = 0; p < pieces; p++) sum += sums[p * channels + c];
      mean[c] = static_cast<float>((static_cast<double>(sum) / pixels - x_zero) * x_scale);
    }
    excite().gates(layers, mean, between, gate);
    const float ratio = static_cast<float>(std::min(x_scale / y_scale, kMostFactor / 2));  // a gate is at most 2
    for (int c = 0; c < channels + kAffinePad; c++) {
      scale[c] = c < channels ? ratio * (gate[c] + (residual ? 1.f : 0.f)) : scale[c - channels];
      offset[c] = -scale[c] * x_zero;
    }
  }
};

}  // namespace

OpDefinition qsqueezeexcite() {
  return {"QSqueezeExcite",
          {{kU8}, {kF32}, {kU8}, {kS8}, {kF32}, {kF32, optional}, {kS8}, {kF32}, {kF32, optional}, {kF32}, {kU8},
           {kU8, optional}},
          {{kU8}},
          make<QSqueezeExcite>};
}

}  // namespace oc
