#include "cuda/concat.hpp"
#include "ops/cuda/device_kernel.hpp"
#include "ops/qconcat.hpp"

namespace oc {

namespace {

enum In { kTables, kImages };

struct QConcatOnDevice : DeviceKernel {
  std::vector<int64_t> upsample;
  DeviceBuffer tables;
  std::vector<const uint8_t*> table;  // of each image; none where it changes nothing

  explicit QConcatOnDevice(const Info& info) : QConcatOnDevice(info, ConcatNode(info)) {}

  void run(Context& context) override {
    require(context.input_count() == table.size() + kImages, "the number of images changed");
    std::vector<cuda::PlacedImage> images;
    std::vector<int64_t> shape;
    for (size_t i = 0; i < table.size(); i++) {
      const Tensor x = context.input(kImages + i);
      require(x.type == kU8 && x.rank() == 4, "images must be uint8 [N, H, W, C]");
      const std::vector<int64_t> large = {x.dim(0), x.dim(1) * upsample[i], x.dim(2) * upsample[i]};
      if (i == 0) shape = large;
      require(large == shape, "images differ in batch, height or width");
      images.push_back({x.as<uint8_t>(), table[i], x.dim(3), upsample[i], upsample[i]});
    }
    int64_t channels = 0;
    for (const auto& image : images) channels += image.channels;
    const Tensor y = context.output(0, {shape[0], shape[1], shape[2], channels}, kU8);
    cuda::place(images.data(), static_cast<int>(images.size()), {y.as<uint8_t>(), shape[0] * shape[1], shape[2]},
                context.stream());
  }

 private:
  QConcatOnDevice(const Info& info, const ConcatNode& node) : DeviceKernel(info), upsample(node.upsample) {
    tables = upload(node.tables.as<uint8_t>(), node.tables.size());
    for (size_t i = 0; i < node.same.size(); i++)
      table.push_back(node.same[i] ? nullptr : tables.as<uint8_t>() + i * ConcatNode::kTableBytes);
  }
};

}  // namespace

OpDefinition qconcat_on_device() { return on_device(qconcat(), make<QConcatOnDevice>, {kTables}); }

}  // namespace oc
