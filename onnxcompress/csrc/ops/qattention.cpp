// QAttention: softmax(q * k^T * scale + mask) * v of every head, on quantized queries, keys and values.
#include <algorithm>
#include <cmath>

#include "cpu/attention.hpp"
#include "ops/buffer.hpp"
#include "ops/qattention.hpp"

namespace oc {

namespace {

enum In { kQkv, kQScale, kKScale, kVScale, kMask, kYScale, kYZero };

constexpr int64_t kMostHeadSize = 1 << 15, kMostKeys = 1 << 16;  // sums of 255 * 128 stay within int32

// [keys] of a "keep" mask as biases: 0 or one in which the score drowns.
template <class T>
void keep(const T* mask, int64_t count, float* bias) {
  for (int64_t i = 0; i < count; i++) bias[i] = mask[i] != T(0) ? 0.f : -kMostBias;
}

void keep(const Tensor& mask, float* bias) {
  switch (mask.type) {
    case kI64: return keep(mask.as<int64_t>(), mask.size(), bias);
    case kI32: return keep(mask.as<int32_t>(), mask.size(), bias);
    case kF32: return keep(mask.as<float>(), mask.size(), bias);
    case ElementType::kBool: return keep(mask.as<uint8_t>(), mask.size(), bias);
    default: throw Error("a mask that keeps must be int64, int32, float or bool");
  }
}

struct QAttention : Kernel {
  int64_t heads = 0, channels = 0;
  bool adds = false;
  uint8_t y_zero = 0;
  Buffer<float> score_scale, value_scale;

  explicit QAttention(const Info& info) {
    heads = info.integer("num_heads", 0);
    const Tensor q = info.constant(kQScale, kF32, "q_scale"), k = info.constant(kKScale, kF32, "k_scale"),
                 v = info.constant(kVScale, kF32, "v_scale");
    channels = v.size();
    require(heads > 0 && channels > 0 && channels % heads == 0, "v_scale must have num_heads * head size values");
    require(q.size() == heads && k.size() == heads, "q_scale and k_scale must have num_heads values");
    require(channels / heads <= kMostHeadSize, "the head size is too large");
    const std::string kind = info.text("mask_kind", "keep");
    require(kind == "keep" || kind == "add", "mask_kind must be keep or add");
    adds = kind == "add";
    const float fallback = 1.f / std::sqrt(static_cast<float>(channels / heads));
    float scale = info.real("scale", 0.f);
    if (scale == 0.f) scale = fallback;
    info.constant(kYScale, kF32, "y_scale"), info.constant(kYZero, kU8, "y_zero_point");
    const float y_scale = info.scalar(kYScale, "y_scale", 1);
    y_zero = info.zero_point(kYZero, "y_zero_point", 0);
    score_scale = Buffer<float>(heads), value_scale = Buffer<float>(channels);
    for (int64_t h = 0; h < heads; h++) {
      score_scale[h] = q.as<float>()[h] * k.as<float>()[h] * scale * 1.4426950408889634f;
      require(std::isfinite(score_scale[h]), "q_scale, k_scale and scale must be finite");
    }
    for (int64_t c = 0; c < channels; c++) value_scale[c] = v.as<float>()[c] / y_scale;
  }

  void compute(Context& context) override {
    const Tensor qkv = context.input(kQkv);
    require(qkv.rank() == 3 && qkv.dim(2) == 3 * channels, "qkv must be [batch, keys, 3 * channels]");
    const int64_t batch = qkv.dim(0), keys = qkv.dim(1), size = channels / heads;
    require(keys <= kMostKeys, "the sequence is too long");
    const Tensor y = context.output(0, {batch, keys, channels}, kU8);
    if (y.size() == 0) return;
    const Mask mask = read_mask(context, batch, keys);

    // Tasks of about a million products: several heads where they are small, parts of the queries where few are large.
    constexpr int64_t kProducts = 1 << 20, kLeastQueries = 64, kManyTasks = 8;
    const int64_t total = batch * heads;
    const int64_t group = std::clamp<int64_t>(kProducts / (2 * keys * keys * size), 1, total);
    const int64_t wanted = group > 1 ? 1 : (kManyTasks + total - 1) / total;
    const int64_t possible = std::min(wanted, std::max<int64_t>(keys / kLeastQueries, 1));
    const int64_t step = (keys / possible + 31) / 32 * 32;
    const int64_t parts = possible == 1 ? 1 : (keys + step - 1) / step;
    const size_t bytes = attention().scratch(static_cast<int>(keys), static_cast<int>(size), mask.full);
    context.parallel((total + group - 1) / group * parts, [&](size_t task) {
      const int64_t first = task / parts * group, begin = task % parts * step;
      const int64_t end = parts == 1 ? keys : std::min(keys, begin + step);
      for (int64_t i = first; i < std::min(first + group, total); i++)
        attention().run(head(qkv, y, mask, i / heads, i % heads), static_cast<int>(begin), static_cast<int>(end),
                        scratch(0, bytes));
    });
  }

 private:
  // What is added to scores: a value a key, or one a query and key; batch and head select it by these strides.
  struct Mask {
    Buffer<float> key_bias;
    const float* full = nullptr;
    int64_t batch_stride = 0, head_stride = 0;
  };

  Mask read_mask(const Context& context, int64_t batch, int64_t keys) const {
    Mask mask;
    if (!context.has(kMask)) return mask;
    const Tensor given = context.input(kMask);
    if (!adds) {
      check_key_mask(given, batch, keys);
      mask.key_bias = Buffer<float>(given.size()), mask.batch_stride = keys;
      keep(given, mask.key_bias.data());
      return mask;
    }
    const AddedMask added(given, batch, heads, keys);
    const int64_t rows = added.rows;
    mask.head_stride = added.head_stride, mask.batch_stride = added.batch_stride;
    if (rows > 1) {
      mask.full = given.as<float>();
      return mask;
    }
    mask.key_bias = Buffer<float>(given.size());
    for (int64_t i = 0; i < given.size(); i++) {
      const float x = given.as<float>()[i];
      mask.key_bias[i] = std::min(x > -kMostBias ? x : -kMostBias, kMostBias) * 1.4426950408889634f;
    }
    return mask;
  }

  AttentionHead head(const Tensor& qkv, const Tensor& y, const Mask& mask, int64_t b, int64_t h) const {
    const int64_t keys = qkv.dim(1), size = channels / heads, at = b * mask.batch_stride + h * mask.head_stride;
    const uint8_t* q = qkv.as<uint8_t>() + b * keys * 3 * channels + h * size;
    return {.q = q,
            .k = q + channels,
            .v = q + 2 * channels,
            .stride = 3 * channels,
            .keys = static_cast<int>(keys),
            .size = static_cast<int>(size),
            .scale = score_scale[h],
            .key_bias = mask.key_bias.size() ? mask.key_bias.data() + at : nullptr,
            .mask = mask.full ? mask.full + at : nullptr,
            .mask_stride = keys,
            .value_scale = value_scale.data() + h * size,
            .zero_point = static_cast<float>(y_zero),
            .y = y.as<uint8_t>() + b * keys * channels + h * size,
            .y_stride = channels};
  }
};

}  // namespace

OpDefinition qattention() {
  return {"QAttention",
          {{kU8}, {kF32}, {kF32}, {kF32}, {kAny, optional}, {kF32}, {kU8}},
          {{kU8}},
          make<QAttention>};
}

}  // namespace oc
