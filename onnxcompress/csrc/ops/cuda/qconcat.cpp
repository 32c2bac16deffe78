#include "cuda/concat.hpp"
#include "cuda/table.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

namespace {

enum In { kTables, kImages };

struct QConcatOnDevice : DeviceKernel {
  std::vector<int64_t> upsample;
  DeviceBuffer tables;
  std::vector<const uint8_t*> table;  // of each image; none where it changes nothing

  explicit QConcatOnDevice(const Info& info) : DeviceKernel(info) {
    const Tensor given = info.constant(kTables, kU8, "tables");
    const size_t n = info.input_count() - kImages;
    require(n >= 1 && given.rank() == 2 && given.dim(0) == static_cast<int64_t>(n) &&
                given.dim(1) == cuda::kTableBytes,
            "tables must be [n, 256] for n images");
    upsample = info.integers("upsample", {});
    if (upsample.empty()) upsample.assign(n, 1);
    require(upsample.size() == n, "upsample must have a value for each image");
    for (int64_t u : upsample) require(u >= 1 && u <= 1 << 10, "upsample must be at least 1");
    const auto identity = info.integers("identity", {});
    require(identity.empty() || identity.size() == n, "identity must have a value for each image");
    tables = upload(given.as<uint8_t>(), n * cuda::kTableBytes);
    for (size_t i = 0; i < n; i++) {
      const size_t at = i * cuda::kTableBytes;
      bool same = true;
      for (int q = 0; q < cuda::kTableBytes; q++) same = same && given.as<uint8_t>()[at + q] == q;
      require(same || identity.empty() || !identity[i], "identity is given for a table that is none");
      table.push_back(same ? nullptr : tables.as<uint8_t>() + at);
    }
  }

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
};

}  // namespace

OpDefinition qconcat_on_device() { return on_device(qconcat(), make<QConcatOnDevice>, {kTables}); }

}  // namespace oc
