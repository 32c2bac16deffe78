// MeanPool: the mean of the token vectors that a mask keeps.
#include <algorithm>

#include "cpu/pooling.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

template <class T>
void widen(const T* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; i++) y[i] = static_cast<float>(x[i]);
}

Buffer<float> weights_of(const Tensor& mask) {
  Buffer<float> weights(mask.size());
  switch (mask.type) {
    case kI64: widen(mask.as<int64_t>(), mask.size(), weights.data()); break;
    case kI32: widen(mask.as<int32_t>(), mask.size(), weights.data()); break;
    case kF32: widen(mask.as<float>(), mask.size(), weights.data()); break;
    case ElementType::kBool: widen(mask.as<uint8_t>(), mask.size(), weights.data()); break;
    default: throw Error("mask must be int64, int32, float or bool");
  }
  return weights;
}

struct MeanPool : Kernel {
  float minimum_count, norm_epsilon;
  bool normalizes;

  explicit MeanPool(const Info& info)
      : minimum_count(info.real("minimum_count", 1e-9f)),
        norm_epsilon(info.real("norm_epsilon", 1e-12f)),
        normalizes(info.integer("normalize", 0) != 0) {}

  void compute(Context& context) override {
    const Tensor x = context.input(0), mask = context.input(1);
    require(x.rank() == 3, "x must be [batch, length, channels]");
    const int64_t batch = x.dim(0), length = x.dim(1), channels = x.dim(2);
    require(mask.rank() == 2 && mask.dim(0) == batch && mask.dim(1) == length, "mask must be [batch, length]");
    require(channels <= 1 << 24, "x has too many channels");
    const Tensor y = context.output(0, {batch, channels}, kF32);
    if (y.size() == 0) return;
    const Buffer<float> weights = weights_of(mask);
    constexpr int64_t kStep = 128;  // channels of a task
    const int64_t steps = (channels + kStep - 1) / kStep;
    context.parallel(batch * steps, [&](size_t task) {
      const int64_t b = task / steps, c = task % steps * kStep;
      const float* w = weights.data() + b * length;
      float count = 0;
      for (int64_t s = 0; s < length; s++) count += w[s];
      pooling().weighted_sum(x.as<float>() + b * length * channels + c, channels, w, length,
                             static_cast<int>(std::min(kStep, channels - c)), 1.f / std::max(count, minimum_count),
                             y.as<float>() + b * channels + c);
    });
    if (normalizes)
      for (int64_t b = 0; b < batch; b++)
        pooling().normalize(y.as<float>() + b * channels, static_cast<int>(channels), norm_epsilon);
  }
};

}  // namespace

OpDefinition meanpool() { return {"MeanPool", {{kF32}, {kAny}}, {{kF32}}, make<MeanPool>}; }

}  // namespace oc
