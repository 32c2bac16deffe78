#include "ops/qlinear_norm.hpp"

#include <climits>

#include "ops/qlinear_layer.hpp"

namespace oc {

Normalization::Normalization(const Info& info, size_t first, int c) {
  const Tensor gamma = info.constant(first, kF32, "gamma");
  require(gamma.size() > 0 && gamma.size() <= INT_MAX / 2, "gamma must have one value for each column");
  c_ = c ? c : static_cast<int>(gamma.size());
  require(gamma.size() == c_, "gamma must have one value for each column");
  const auto beta = info.constant(first + 1), scale = info.constant(first + 2);
  require(!beta || (beta->type == kF32 && beta->size() == c_), "beta must have one float for each column");
  const size_t padded = static_cast<size_t>(c_) + 64;
  gamma_ = per_column(gamma, c_, padded, "gamma");
  beta_ = beta ? per_column(*beta, c_, padded, "beta") : Buffer<float>(padded);
  if (scale) inverse_ = inverse_scale(*scale, c_, padded, "q_scale");
  zero_point_ = info.zero_point(first + 3, "q_zero_point", 0);
  epsilon_ = info.real("epsilon", 1e-5f);
  require(epsilon_ >= 0, "epsilon must not be negative");
  dynamic_ = info.integer("dynamic", 0) != 0;
}

LayerNorm Normalization::outputs(Context& context, const std::vector<int64_t>& shape) const {
  std::vector<int64_t> row_shape = shape;
  row_shape.back() = 1;
  const Tensor y = context.output(kY, shape, kF32), q = context.output(kQ, shape, kU8),
               scale = context.output(kRowScale, row_shape, kF32), zero = context.output(kRowZero, row_shape, kU8),
               sum = context.output(kSum, shape, kF32);
  LayerNorm p{c_, gamma_.data(), beta_.data(), inverse_.data(), epsilon_, zero_point_};
  p.y = y.as<float>(), p.q = q.as<uint8_t>(), p.sum = sum.as<float>();
  p.row_scale = scale.as<float>(), p.row_zero_point = zero.as<uint8_t>();
  if (y.size() == 0) return p;
  require(!p.q || dynamic_ || p.inverse, "q needs q_scale, or dynamic = 1");
  require(dynamic_ && p.q ? p.row_scale && p.row_zero_point : !p.row_scale && !p.row_zero_point,
          "row_scale and row_zero_point go with q and dynamic = 1");
  return p;
}

void Normalization::run(const LayerNorm& all, const float* x, int64_t begin, int64_t end) const {
  LayerNorm p = all;
  const ptrdiff_t at = begin * c_;
  p.x = x;
  if (p.residual) p.residual += at;
  if (p.sum) p.sum += at;
  if (p.y) p.y += at;
  if (p.q) p.q += at;
  if (p.row_scale) p.row_scale += begin, p.row_zero_point += begin;
  auto* rows = reinterpret_cast<float*>(scratch(kScratchNorm, sizeof(float) * 4 * c_));
  norm().layer_norm(p, static_cast<int>(end - begin), rows);
}

}  // namespace oc
