#include "cuda/pool.hpp"
#include "cuda/squeeze_excite.hpp"
#include "ops/cuda/byte_table.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW1, kW1Scale, kB1, kW2, kW2Scale, kB2, kYScale, kYZero, kTable };

// A scale of 1 or n values, or a bias of n, as n of them and zeros up to `padded`.
std::vector<float> spread(const std::optional<Tensor>& x, int n, int padded, const char* name) {
  std::vector<float> values(padded);
  if (!x) return values;
  if (x->type != kF32 || (x->size() != 1 && x->size() != n)) throw Error(std::string(name) + " has a wrong shape");
  for (int i = 0; i < n; i++) values[i] = x->as<float>()[x->size() == 1 ? 0 : i];
  return values;
}

cuda::Activation activation_of(const Info& info) {
  const std::string activation = info.text("activation", "relu");
  if (activation == "silu") return cuda::Activation::kSilu;
  if (activation == "hardswish") return cuda::Activation::kHardSwish;
  require(activation == "relu", "activation must be relu, silu or hardswish");
  return cuda::Activation::kRelu;
}

struct QSqueezeExciteOnDevice : DeviceKernel {
  cuda::SqueezeExcite constants;
  DeviceBuffer w1, w2, w1_scale, w2_scale, b1, b2, table;

  explicit QSqueezeExciteOnDevice(const Info& info)
      : DeviceKernel(info), table(optional_table(info, *this, kTable)) {
    const Tensor first = info.constant(kW1, kS8, "w1"), second = info.constant(kW2, kS8, "w2");
    require(first.rank() == 2 && second.rank() == 2, "w1 must be [R, C] and w2 [C, R]");
    const int64_t hidden = first.dim(0), channels = first.dim(1);
    require(second.dim(0) == channels && second.dim(1) == hidden, "w2 must be [C, R] where w1 is [R, C]");
    require(hidden > 0 && channels > 0, "the layers are empty");
    require(hidden <= 1 << 24 && channels <= 1 << 24, "the layers are too large");
    constants.hidden = static_cast<int>(hidden), constants.channels = static_cast<int>(channels);
    upload_weights(first.as<int8_t>(), second.as<int8_t>());
    upload_vectors(info);
    constants.x_scale = info.scalar(kXScale, "x_scale", 1), constants.y_scale = info.scalar(kYScale, "y_scale", 1);
    constants.x_zero = info.zero_point(kXZero, "x_zero_point", 0);
    constants.y_zero = info.zero_point(kYZero, "y_zero_point", 0);
    constants.table = table.as<uint8_t>();
    constants.activation = activation_of(info);
    const std::string gate = info.text("gate", "hardsigmoid");
    require(gate == "hardsigmoid" || gate == "sigmoid", "gate must be hardsigmoid or sigmoid");
    constants.sigmoid = gate == "sigmoid";
    constants.alpha = info.real("alpha", 1.f / 6), constants.beta = info.real("beta", 0.5f);
    constants.residual = info.integer("residual", 0) ? 1.f : 0.f;
  }

  // Both with the channels of a hidden value side by side.
  void upload_weights(const int8_t* first, const int8_t* second) {
    const size_t channels = constants.channels, hidden = constants.hidden,
                 padded = cuda::padded_channels(constants.channels);
    std::vector<int8_t> one(hidden * padded), two(hidden * padded);
    for (size_t r = 0; r < hidden; r++) {
      for (size_t c = 0; c < channels; c++) {
        one[r * padded + c] = first[r * channels + c], two[r * padded + c] = second[c * hidden + r];
      }
    }
    w1 = upload(one), w2 = upload(two);
    constants.w1 = w1.as<int8_t>(), constants.w2 = w2.as<int8_t>();
  }

  void upload_vectors(const Info& info) {
    const int channels = constants.channels, hidden = constants.hidden, padded = cuda::padded_channels(channels);
    w1_scale = upload(spread(info.constant(kW1Scale), hidden, hidden, "w1_scale"));
    w2_scale = upload(spread(info.constant(kW2Scale), channels, padded, "w2_scale"));
    b1 = upload(spread(info.constant(kB1), hidden, hidden, "b1"));
    b2 = upload(spread(info.constant(kB2), channels, padded, "b2"));
    constants.w1_scale = w1_scale.as<float>(), constants.w2_scale = w2_scale.as<float>();
    constants.b1 = b1.as<float>(), constants.b2 = b2.as<float>();
  }

  void run(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4 && x.dim(3) == constants.channels, "x must be [N, H, W, C] with the channels of w1");
    const Tensor y = context.output(0, x.shape, kU8);
    if (y.size() == 0) return;
    const int64_t pixels = x.dim(1) * x.dim(2);
    require(pixels < (1 << 23), "the image is too large");
    cuda::SqueezeExcite s = constants;
    s.x = x.as<uint8_t>(), s.y = y.as<uint8_t>(), s.images = x.dim(0), s.pixels = pixels;
    s.parts = cuda::parts_of_image(s.images, pixels, s.channels, multiprocessors());
    const DeviceBuffer scratch = allocate(context, cuda::squeeze_excite_scratch(s));
    s.scratch = scratch.as();
    cuda::squeeze_excite(s, context.stream());
  }
};

}  // namespace

OpDefinition qsqueezeexcite_on_device() {
  return on_device(qsqueezeexcite(), make<QSqueezeExciteOnDevice>,
                   {kXScale, kXZero, kW1, kW1Scale, kB1, kW2, kW2Scale, kB2, kYScale, kYZero, kTable});
}

}  // namespace oc
