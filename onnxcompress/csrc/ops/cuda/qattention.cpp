// QAttention on a device.
#include <cmath>

#include "cuda/attention.hpp"
#include "ops/cuda/device_kernel.hpp"
#include "ops/qattention.hpp"

namespace oc {

namespace {

enum In { kQkv, kQScale, kKScale, kVScale, kMask, kYScale, kYZero };

cuda::AttentionMaskType mask_type(ElementType type) {
  switch (type) {
    case kI64: return cuda::AttentionMaskType::kInt64;
    case kI32: return cuda::AttentionMaskType::kInt32;
    case kF32: return cuda::AttentionMaskType::kFloat;
    case ElementType::kBool: return cuda::AttentionMaskType::kBool;
    default: throw Error("a mask that keeps must be int64, int32, float or bool");
  }
}

struct QAttentionOnDevice : DeviceKernel {
  int64_t heads, channels = 0;
  bool adds = false;
  int y_zero = 0;
  DeviceBuffer score_scale, value_scale;

  explicit QAttentionOnDevice(const Info& info) : DeviceKernel(info), heads(info.integer("num_heads", 0)) {
    const Tensor q = info.constant(kQScale, kF32, "q_scale"), k = info.constant(kKScale, kF32, "k_scale"),
                 v = info.constant(kVScale, kF32, "v_scale");
    channels = v.size();
    require(heads > 0 && channels > 0 && channels % heads == 0, "v_scale must have num_heads * head size values");
    require(q.size() == heads && k.size() == heads, "q_scale and k_scale must have num_heads values");
    const int64_t size = channels / heads;
    require(size <= cuda::kMostAttentionSize && heads <= 1 << 24, "the head size is too large for CUDA: at most 256");
    const std::string kind = info.text("mask_kind", "keep");
    require(kind == "keep" || kind == "add", "mask_kind must be keep or add");
    adds = kind == "add";
    float scale = info.real("scale", 0.f);
    if (scale == 0.f) scale = 1.f / std::sqrt(static_cast<float>(size));
    info.constant(kYScale, kF32, "y_scale"), info.constant(kYZero, kU8, "y_zero_point");
    const float y_scale = info.scalar(kYScale, "y_scale", 1);
    y_zero = info.zero_point(kYZero, "y_zero_point", 0);

    constexpr float kLog2E = 1.4426950408889634f;
    std::vector<float> of_scores(heads), of_values(channels);
    for (int64_t h = 0; h < heads; h++) {
      of_scores[h] = q.as<float>()[h] * k.as<float>()[h] * scale * kLog2E;
      require(std::isfinite(of_scores[h]), "q_scale, k_scale and scale must be finite");
    }
    for (int64_t c = 0; c < channels; c++) of_values[c] = v.as<float>()[c] / y_scale;
    score_scale = upload(of_scores), value_scale = upload(of_values);
  }

  void run(Context& context) override {
    const Tensor qkv = context.input(kQkv);
    require(qkv.rank() == 3 && qkv.dim(2) == 3 * channels, "qkv must be [batch, keys, 3 * channels]");
    const int64_t batch = qkv.dim(0), keys = qkv.dim(1);
    require(keys <= cuda::kMostAttentionKeys, "the sequence is too long");
    const Tensor y = context.output(0, {batch, keys, channels}, kU8);
    if (y.size() == 0) return;
    cuda::Attention p;
    p.batch = batch, p.keys = static_cast<int>(keys);
    p.heads = static_cast<int>(heads), p.size = static_cast<int>(channels / heads);
    p.qkv = qkv.as<uint8_t>(), p.y = y.as<uint8_t>(), p.y_zero = y_zero;
    p.score_scale = score_scale.as<float>(), p.value_scale = value_scale.as<float>();
    if (context.has(kMask)) p.mask = read_mask(context.input(kMask), batch, keys);
    cuda::attention(p, context.stream());
  }

 private:
  cuda::AttentionMask read_mask(const Tensor& given, int64_t batch, int64_t keys) const {
    cuda::AttentionMask mask;
    mask.values = given.data, mask.adds = adds;
    if (!adds) {
      check_key_mask(given, batch, keys);
      mask.type = mask_type(given.type), mask.batch_stride = keys;
      return mask;
    }
    const AddedMask added(given, batch, heads, keys);
    mask.type = cuda::AttentionMaskType::kFloat;
    mask.query_stride = added.rows == 1 ? 0 : keys;
    mask.head_stride = added.head_stride, mask.batch_stride = added.batch_stride;
    return mask;
  }
};

}  // namespace

OpDefinition qattention_on_device() {
  return on_device(qattention(), make<QAttentionOnDevice>, {kQScale, kKScale, kVScale, kYScale, kYZero});
}

}  // namespace oc
