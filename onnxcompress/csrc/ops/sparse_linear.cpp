#include "ops/sparse_linear.hpp"

#include <algorithm>
#include <climits>

#include "cpu/quantize.hpp"

namespace oc {

SparseLinear::Input SparseLinear::input(Context& context) const {
  const Tensor x = context.input(kX);
  const int k = weights().k;
  require(x.type == kU8 || x.type == kF32, "x must be uint8 or float");
  require(x.rank() >= 1 && x.dim(-1) == k, "the last dimension of x is not in_features");
  require(x.size() / k <= INT_MAX - 64, "x has too many rows");
  Input result{x.as<uint8_t>(), static_cast<int>(x.size() / k), nullptr, nullptr, x.shape};
  result.shape.back() = n();
  if (rows()) {
    require(x.type == kU8, "x_scale and x_zero_point of one value must be constants where x is float");
    const Tensor scale = context.input(kXScale), zero = context.input(kXZero);
    require(scale.type == kF32 && zero.type == kU8 && scale.size() == result.m && zero.size() == result.m,
            "x_scale and x_zero_point must have one value for each row of x");
    result.row_scale = scale.as<float>(), result.row_zero_point = zero.as<uint8_t>();
  }
  if (x.type == kU8) return result;
  uint8_t* quantized = scratch(kScratchX, static_cast<size_t>(result.m) * k);
  const int step = std::max(1, (1 << 16) / k);
  context.parallel((static_cast<size_t>(result.m) + step - 1) / step, [&](size_t i) {
    const int64_t begin = static_cast<int64_t>(i) * step, count = std::min<int64_t>(step, result.m - begin);
    quantizing().quantize(x.as<float>() + begin * k, static_cast<int>(count), k, x_scale(), x_zero(),
                          quantized + begin * k, k);
  });
  result.bytes = quantized;
  return result;
}

SparseOutput SparseLinear::output(const Input& x) const {
  SparseOutput y = SparseLayer::output();
  y.x_scale = x.row_scale, y.x_zero = x.row_zero_point;
  return y;
}

}  // namespace oc
