#include "ops/weightonlylinear.hpp"

#include "cuda/weight_only.hpp"
#include "cuda/weight_only_convert.hpp"
#include "cuda/weight_only_pack.hpp"
#include "ops/cuda/device_kernel.hpp"
#include "ops/cuda/layer_output.hpp"

namespace oc {

namespace {

struct WeightOnlyLinearOnDevice : DeviceKernel {
  WeightOnlyNode node;
  DeviceBuffer words, scale, zero_point, channel, bias;
  cuda::WeightOnlyLayer layer;  // without what a run gives

  explicit WeightOnlyLinearOnDevice(const Info& info) : DeviceKernel(info), node(info) {
    require(node.n <= kMostDeviceOutputs, "w has too many outputs for CUDA");
    cuda::WeightOnlySource source;
    source.bits = node.bits, source.n = node.n, source.k = node.k, source.block = node.block;
    source.codes = node.codes, source.scale = node.scale, source.zero_point = node.zero_point;
    const cuda::PackedWeightOnly packed = cuda::pack_weight_only(source);
    words = upload(packed.words), scale = upload(packed.scale), channel = upload(packed.channel);
    zero_point = upload(packed.zero_point);
    if (node.bias) bias = upload(node.bias, static_cast<size_t>(node.n));
    layer.w = {packed.bits, packed.n, packed.k, packed.blocks, packed.chunk_shift, words.as(), scale.as(),
               zero_point.as<uint8_t>(), channel.as<float>()};
    layer.bias = bias.as<float>();
    layer.activation = device_activation(node.activation);
    layer.gated = node.gated;
  }

  void run(Context& context) override {
    const WeightOnlyRun given(node, context);
    const Tensor y = context.output(0, given.shape, given.x.type);
    if (given.m == 0 || !y.data) return;
    void* stream = context.stream();
    cuda::WeightOnlyLayer l = layer;
    l.m = given.m, l.w.k = given.k;  // both that the codes may be of take as many steps
    l.residual = given.residual, l.y = y.data, l.x = given.x.data;
    DeviceBuffer halves;
    if (given.x.type == kF32) {
      halves = allocate(context, given.x.size() * sizeof(uint16_t));
      cuda::convert_to_halves({given.x.as<float>(), halves.as(), given.x.size()}, stream);
      l.x = halves.as(), l.float_output = l.float_residual = true;
    }
    const cuda::WeightOnlyPlan plan = cuda::plan_weight_only(l, multiprocessors());
    const DeviceBuffer partial = allocate(context, plan.partial * sizeof(float));
    const DeviceBuffer arrived = allocate(context, plan.arrived * sizeof(int));
    l.partial = partial.as<float>(), l.arrived = arrived.as<int>();
    if (plan.arrived) cuda::clear(l.arrived, plan.arrived * sizeof(int), stream);
    cuda::weight_only(l, plan, stream);
  }
};

OpDefinition of(OpDefinition definition) {
  using In = WeightOnlyNode;
  return on_device(std::move(definition), make<WeightOnlyLinearOnDevice>, {In::kW, In::kWScale, In::kWZero, In::kBias});
}

}  // namespace

OpDefinition weightonlylinear_on_device() { return of(weightonlylinear()); }
OpDefinition weightonlylinear_half_on_device() { return of(weightonlylinear_half()); }

}  // namespace oc
