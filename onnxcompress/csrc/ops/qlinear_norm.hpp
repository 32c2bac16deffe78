// The layer normalization that ends QLayerNorm, QLinearLayerNorm and QSparseLinearLayerNorm.
#pragma once

#include "cpu/norm.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

// Constants of a layer normalization over c columns, and its outputs y, q, row_scale, row_zero_point, sum.
class Normalization {
 public:
  enum Out { kY, kQ, kRowScale, kRowZero, kSum };

  // Reads gamma, beta, q_scale and q_zero_point, inputs from `first` on; throws Error where they do not fit together.
  // c: their size; 0: that of gamma.
  Normalization(const Info& info, size_t first, int c = 0);

  // The outputs of this run, of rows of this shape, for row 0; throws Error where others are asked for than attributes
  // and inputs allow.
  LayerNorm outputs(Context& context, const std::vector<int64_t>& shape) const;

  // Rows [begin, end) of `all`; x is that of row `begin`.
  void run(const LayerNorm& all, const float* x, int64_t begin, int64_t end) const;

  int c() const { return c_; }

 private:
  int c_;
  float epsilon_, zero_point_;
  bool dynamic_;
  Buffer<float> gamma_, beta_, inverse_;
};

}  // namespace oc
