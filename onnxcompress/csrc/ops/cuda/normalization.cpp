#include "ops/cuda/normalization.hpp"

#include <climits>

#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

enum Out { kY, kQ, kRowScale, kRowZero, kSum };

}  // namespace

DeviceNormalization::DeviceNormalization(const Info& info, const DeviceKernel& kernel, size_t first, int columns)
    : epsilon_(info.real("epsilon", 1e-5f)), zero_(info.zero_point(first + 3, "q_zero_point", 0)),
      dynamic_(info.integer("dynamic", 0) != 0) {
  const Tensor gamma = info.constant(first, kF32, "gamma");
  require(gamma.size() > 0 && gamma.size() <= INT_MAX / 2, "gamma must have one value for each column");
  columns_ = columns ? columns : static_cast<int>(gamma.size());
  require(gamma.size() == columns_, "gamma must have one value for each column");
  const auto beta = info.constant(first + 1), scale = info.constant(first + 2);
  require(!beta || (beta->type == kF32 && beta->size() == columns_), "beta must have one float for each column");
  require(epsilon_ >= 0, "epsilon must not be negative");
  gamma_ = kernel.upload(gamma.as<float>(), columns_);
  if (beta) beta_ = kernel.upload(beta->as<float>(), columns_);
  quantized_ = scale.has_value();
  if (!quantized_) return;
  const Buffer<float> inverse = inverse_scale(*scale, columns_, columns_, "q_scale");
  inverse_ = inverse[0];
  if (scale->size() > 1) inverse_vector_ = kernel.upload(inverse);
}

cuda::Norm DeviceNormalization::outputs(Context& context, const std::vector<int64_t>& shape) const {
  std::vector<int64_t> row_shape = shape;
  row_shape.back() = 1;
  const Tensor y = context.output(kY, shape, kF32), q = context.output(kQ, shape, kU8),
               scale = context.output(kRowScale, row_shape, kF32), zero = context.output(kRowZero, row_shape, kU8),
               sum = context.output(kSum, shape, kF32);
  cuda::Norm p;
  p.rows = y.size() / columns_, p.columns = columns_, p.epsilon = epsilon_;
  p.gamma = gamma_.as<float>(), p.beta = beta_.as<float>();
  p.sum = sum.data, p.y = y.data, p.q = q.as<uint8_t>();
  p.q_inverse = inverse_, p.q_inverse_vector = inverse_vector_.as<float>(), p.q_zero = zero_;
  p.dynamic = dynamic_ && p.q, p.row_scale = scale.as<float>(), p.row_zero = zero.as<uint8_t>();
  if (p.rows == 0) return p;
  require(!p.q || dynamic_ || quantized_, "q needs q_scale, or dynamic = 1");
  require(p.dynamic ? p.row_scale && p.row_zero : !p.row_scale && !p.row_zero,
          "row_scale and row_zero_point go with q and dynamic = 1");
  return p;
}

}  // namespace oc
