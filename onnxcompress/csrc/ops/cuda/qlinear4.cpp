// The kernels for half activations take the bytes as well: halves hold them exactly, less their zero point. Blocks are
// padded to whole 32 inputs.
#include <algorithm>
#include <cmath>

#include "cuda/linear4.hpp"
#include "cuda/weight_only.hpp"
#include "cuda/weight_only_pack.hpp"
#include "ops/cuda/layer_output.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW, kWScale, kBias, kResidual, kYScale, kYZero };

constexpr int kPiece = 32;  // of a block, with a scale of its own

class QLinear4OnDevice : public DeviceKernel {
 public:
  explicit QLinear4OnDevice(const Info& info)
      : DeviceKernel(info), input_(info), activation_(device_activation(info.text("activation", ""))) {
    const Tensor w = info.constant(kW, kU8, "w"), w_scale = info.constant(kWScale, kF32, "w_scale");
    const int64_t size = info.integer("block_size", 32);
    constexpr int64_t kMostK = 1 << 20, kMostN = 1 << 30, kMostBlock = 65536;
    require(w.rank() == 2 && w.size() > 0 && w.dim(0) <= kMostN && w.dim(1) <= kMostK / 2, "w must be [N, K / 2]");
    require(size >= 32 && size % 4 == 0 && size <= kMostBlock && w.dim(1) * 2 % size == 0,
            "block_size must be a multiple of 4 from 32 on that divides K");
    require(w.dim(0) <= kMostDeviceOutputs, "w has too many outputs for CUDA");
    n_ = static_cast<int>(w.dim(0)), k_ = static_cast<int>(w.dim(1) * 2), block_ = static_cast<int>(size);
    blocks_ = k_ / block_, padded_ = (block_ + kPiece - 1) / kPiece * kPiece;
    require(w_scale.rank() == 2 && w_scale.dim(0) == n_ && w_scale.dim(1) == blocks_,
            "w_scale must be [N, K / block_size]");
    const float* scales = w_scale.as<float>();
    require(std::all_of(scales, scales + w_scale.size(), [](float x) { return std::isfinite(x); }),
            "w_scale must be finite");
    upload_weights(w, w_scale);
    if (const auto bias = info.constant(kBias)) {
      require(bias->type == kF32 && bias->size() == n_, "bias must have N floats");
      bias_ = upload(bias->as<float>(), n_);
    }
    y_zero_ = info.zero_point(kYZero, "y_zero_point", 0);
    const auto y_scale = info.constant(kYScale);
    quantized_ = y_scale.has_value();
    if (quantized_) inverse_ = upload(inverse_scale(*y_scale, n_, n_, "y_scale"));
  }

  void run(Context& context) override {
    const auto x = input_.read(context, *this, n_, k_);
    cuda::FinishFloats finish{nullptr, x.m, n_, input_.scale(), x.row_scale, bias_.as<float>(), activation_};
    finish.residual = residual_input(context, kResidual, x.shape);
    finish.y_inverse = inverse_.as<float>(), finish.y_zero = y_zero_;
    finish.y = context.output(0, x.shape, kU8).as<uint8_t>();
    finish.y_float = context.output(1, x.shape, kF32).as<float>();
    if (x.m == 0) return;
    require(quantized_ ? finish.y && !finish.y_float : finish.y_float && !finish.y,
            "the output is y where y_scale is given, and y_float otherwise");
    const DeviceBuffer halves = allocate(context, x.m * layer_.w.k * sizeof(uint16_t));
    cuda::centre({x.bytes, halves.as(), x.m, blocks_, block_, padded_, input_.zero(), x.row_zero}, context.stream());
    const DeviceBuffer sums = allocate(context, x.m * n_ * sizeof(float));
    multiply(context, halves, static_cast<int>(x.m), sums);
    finish.sums = sums.as<float>();
    cuda::finish_floats(finish, context.stream());
  }

 private:
  void upload_weights(const Tensor& w, const Tensor& w_scale) {
    const int pieces = padded_ / kPiece, k = blocks_ * padded_;
    constexpr uint8_t kZeros = 0x88;
    std::vector<uint8_t> codes(size_t(n_) * k / 2, kZeros);
    std::vector<float> scale(size_t(n_) * blocks_ * pieces);
    for (int64_t block = 0; block < int64_t{n_} * blocks_; block++) {
      std::memcpy(codes.data() + block * padded_ / 2, w.as<uint8_t>() + block * block_ / 2, block_ / 2);
      for (int piece = 0; piece < pieces; piece++) scale[block * pieces + piece] = w_scale.as<float>()[block];
    }
    cuda::WeightOnlySource source;
    source.n = n_, source.k = k, source.block = kPiece, source.codes = codes.data(), source.scale = scale.data();
    const cuda::PackedWeightOnly packed = cuda::pack_weight_only(source);
    words_ = upload(packed.words), scale_ = upload(packed.scale), channel_ = upload(packed.channel);
    zero_point_ = upload(packed.zero_point);
    layer_.w = {packed.bits, packed.n, packed.k, packed.blocks, packed.chunk_shift, words_.as(), scale_.as(),
                zero_point_.as<uint8_t>(), channel_.as<float>()};
    layer_.float_output = true;
  }

  void multiply(Context& context, const DeviceBuffer& x, int m, const DeviceBuffer& y) const {
    cuda::WeightOnlyLayer layer = layer_;
    layer.m = m, layer.x = x.as(), layer.y = y.as();
    const cuda::WeightOnlyPlan plan = cuda::plan_weight_only(layer, multiprocessors());
    const DeviceBuffer partial = allocate(context, plan.partial * sizeof(float));
    const DeviceBuffer arrived = allocate(context, plan.arrived * sizeof(int));
    layer.partial = partial.as<float>(), layer.arrived = arrived.as<int>();
    if (plan.arrived) cuda::clear(layer.arrived, plan.arrived * sizeof(int), context.stream());
    cuda::weight_only(layer, plan, context.stream());
  }

  QuantizedInput input_;
  int n_ = 0, k_ = 0, block_ = 0, blocks_ = 0, padded_ = 0, y_zero_ = 0;
  bool quantized_ = false;
  cuda::Activation activation_;
  cuda::WeightOnlyLayer layer_;
  DeviceBuffer words_, scale_, zero_point_, channel_, bias_, inverse_;
};

}  // namespace

OpDefinition qlinear4_on_device() {
  return on_device(qlinear4(), make<QLinear4OnDevice>, {kW, kWScale, kBias, kYScale, kYZero});
}

}  // namespace oc
