// QTable: y = table[x], any element-wise function of one quantized tensor.
#include "cpu/bytes.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

struct QTable : Kernel {
  Tensor table;

  explicit QTable(const Info& info) : table(info.constant(1, kU8, "table")) {
    require(table.size() == 256, "table must have 256 values");
  }

  void compute(Context& context) override {
    const Tensor x = context.input(0);
    const Tensor y = context.output(0, x.shape, kU8);
    constexpr int64_t kPiece = 1 << 16;
    const int64_t size = x.size();
    context.parallel((size + kPiece - 1) / kPiece, [&](size_t i) {
      const int64_t begin = i * kPiece, count = std::min(kPiece, size - begin);
      bytes().table(x.as<uint8_t>() + begin, table.as<uint8_t>(), y.as<uint8_t>() + begin, count);
    });
  }
};

}  // namespace

OpDefinition qtable() { return {"QTable", {{kU8}, {kU8}}, {{kU8}}, make<QTable>}; }

}  // namespace oc
