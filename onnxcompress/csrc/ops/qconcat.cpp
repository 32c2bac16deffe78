// QConcat: images side by side along their channels, each requantized by a table and enlarged where it is smaller.
#include "cpu/concat.hpp"
#include "ops/buffer.hpp"
#include "ops/qconcat.hpp"

namespace oc {

namespace {

struct QConcat : Kernel {
  ConcatNode node;
  const std::vector<int64_t>& upsample = node.upsample;
  std::vector<const uint8_t*> table;  // of each input; none where it changes nothing

  explicit QConcat(const Info& info) : node(info) {
    for (size_t i = 0; i < node.same.size(); i++) table.push_back(node.same[i] ? nullptr : node.table(i));
  }

  void compute(Context& context) override {
    const size_t n = table.size();
    require(context.input_count() == n + 1, "the number of images changed");
    std::vector<Tensor> x;
    int64_t channels = 0;
    for (size_t i = 0; i < n; i++) {
      x.push_back(context.input(i + 1));
      require(x[i].type == kU8 && x[i].rank() == 4, "images must be uint8 [N, H, W, C]");
      const bool fits = x[i].dim(0) == x[0].dim(0) && x[i].dim(1) * upsample[i] == x[0].dim(1) * upsample[0] &&
                        x[i].dim(2) * upsample[i] == x[0].dim(2) * upsample[0];
      require(fits, "images differ in batch, height or width");
      channels += x[i].dim(3);
    }
    const int64_t h = x[0].dim(1) * upsample[0], w = x[0].dim(2) * upsample[0], rows = x[0].dim(0) * h;
    const Tensor y = context.output(0, {x[0].dim(0), h, w, channels}, kU8);
    if (y.size() == 0) return;
    const int64_t step = std::max<int64_t>(1, (1 << 16) / (w * channels));
    context.parallel((rows + step - 1) / step, [&](size_t task) {
      for (int64_t r = task * step; r < std::min<int64_t>(rows, (task + 1) * step); r++) {
        uint8_t* to = y.as<uint8_t>() + r * w * channels;
        for (size_t i = 0; i < n; to += x[i].dim(3), i++) {
          // h is a whole number of x's rows: those of all images in one count
          const uint8_t* from = x[i].as<uint8_t>() + r / upsample[i] * x[i].dim(2) * x[i].dim(3);
          concat().place(from, static_cast<int>(x[i].dim(2)), static_cast<int>(x[i].dim(3)),
                         static_cast<int>(upsample[i]), to, channels, table[i]);
        }
      }
    });
  }
};

}  // namespace

OpDefinition qconcat() { return {"QConcat", {{kU8}, {kU8, variadic}}, {{kU8}}, make<QConcat>}; }

}  // namespace oc
