#include "ops/cuda/quantized_input.hpp"

#include <cfloat>
#include <climits>

#include "cuda/quantize.hpp"

namespace oc {

QuantizedInput::QuantizedInput(const Info& info) {
  const auto scale = info.constant(kXScale), zero = info.constant(kXZero);
  by_row_ = !(scale && scale->size() == 1 && zero && zero->size() == 1);
  if (by_row_) return;
  scale_ = info.scalar(kXScale, "x_scale", 1), zero_ = info.zero_point(kXZero, "x_zero_point", 0);
  require(scale_ >= FLT_MIN && scale_ <= FLT_MAX, "x_scale must be positive");
}

QuantizedInput::Rows QuantizedInput::read(Context& context, const DeviceKernel& kernel, int n, int k) const {
  const Tensor x = context.input(kX);
  require(x.type == kU8 || x.type == kF32, "x must be uint8 or float");
  require(x.rank() >= 1 && x.dim(-1) == k, "the last dimension of x is not that of the weights");
  const int64_t m = x.size() / k;
  require(m <= INT_MAX - 64, "x has too many rows");
  Rows rows{x.as<uint8_t>(), m, nullptr, nullptr, x.shape, {}};
  rows.shape.back() = n;
  if (by_row_) {
    require(x.type == kU8, "x_scale and x_zero_point of one value must be constants where x is float");
    const Tensor scale = context.input(kXScale), zero = context.input(kXZero);
    require(scale.type == kF32 && zero.type == kU8 && scale.size() == m && zero.size() == m,
            "x_scale and x_zero_point must have one value for each row of x");
    rows.row_scale = scale.as<float>(), rows.row_zero = zero.as<uint8_t>();
  }
  if (x.type == kF32 && m > 0) {
    rows.quantized = kernel.allocate(context, x.size());
    rows.bytes = rows.quantized.as<uint8_t>();
    cuda::quantize({x.as<float>(), rows.quantized.as<uint8_t>(), x.size(), 1 / scale_, zero_}, context.stream());
  }
  return rows;
}

}  // namespace oc
