// MeanPool on a device.
#include "cuda/mean_pool.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

namespace {

enum In { kX, kMask };

cuda::WeightType weight_type(ElementType type) {
  switch (type) {
    case kI64: return cuda::WeightType::kInt64;
    case kI32: return cuda::WeightType::kInt32;
    case kF32: return cuda::WeightType::kFloat;
    case ElementType::kBool: return cuda::WeightType::kBool;
    default: throw Error("mask must be int64, int32, float or bool");
  }
}

struct MeanPoolOnDevice : DeviceKernel {
  cuda::MeanPool shared;  // what attributes say

  explicit MeanPoolOnDevice(const Info& info) : DeviceKernel(info) {
    shared.minimum_count = info.real("minimum_count", 1e-9f);
    shared.norm_epsilon = info.real("norm_epsilon", 1e-12f);
    shared.normalizes = info.integer("normalize", 0) != 0;
    shared.multiprocessors = multiprocessors();
  }

  void run(Context& context) override {
    const Tensor x = context.input(kX), mask = context.input(kMask);
    require(x.rank() == 3, "x must be [batch, length, channels]");
    const int64_t batch = x.dim(0), length = x.dim(1), channels = x.dim(2);
    require(mask.rank() == 2 && mask.dim(0) == batch && mask.dim(1) == length, "mask must be [batch, length]");
    require(channels <= 1 << 24, "x has too many channels");
    const Tensor y = context.output(0, {batch, channels}, kF32);
    if (y.size() == 0) return;
    cuda::MeanPool p = shared;
    p.batch = batch, p.length = length, p.channels = static_cast<int>(channels);
    p.x = x.as<float>(), p.weights = mask.data, p.weight_type = weight_type(mask.type), p.y = y.as<float>();
    const DeviceBuffer sums = allocate(context, cuda::mean_pool_scratch(p) * sizeof(float));
    p.scratch = sums.as<float>();
    cuda::mean_pool(p, context.stream());
  }
};

}  // namespace

OpDefinition meanpool_on_device() { return on_device(meanpool(), make<MeanPoolOnDevice>, {}); }

}  // namespace oc
