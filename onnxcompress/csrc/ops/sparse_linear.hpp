// The linear layer with block-sparse weights that begins QSparseLinear and QSparseLinearLayerNorm.
#pragma once

#include "ops/qlinear_layer.hpp"
#include "ops/sparse_layer.hpp"

namespace oc {

class SparseLinear : public SparseLayer {
 public:
  // x of one run: rows of bytes, one after the other.
  struct Input {
    const uint8_t* bytes;
    int m;
    const float* row_scale = nullptr;
    const uint8_t* row_zero_point = nullptr;
    std::vector<int64_t> shape;  // of the result
  };

  // Weights of the attribute in_features; throws Error where the constants do not fit together.
  explicit SparseLinear(const Info& info) : SparseLayer(info, info.integer("in_features", 0), true) {}

  // x of this run; throws Error where its shape or its parameters do not fit. Floats are quantized.
  Input input(Context& context) const;

  // Everything but where the results go, the activation and the residual.
  SparseOutput output(const Input& x) const;

  // All rows, on the session's threads; `y` holds where the results go.
  void multiply(Context& context, const Input& x, const SparseOutput& y) const {
    SparseLayer::multiply(context, x.bytes, weights().k, x.m, y);
  }

  // For each block of rows: multiplies it into floats, in scratch memory unless `floats` [m][n] are wanted, then calls
  // finish(begin, end, floats of row `begin`).
  template <class Finish>
  void for_rows(Context& context, const Input& x, const SparseOutput& y, float* floats, Finish&& finish) const;
};

template <class Finish>
void SparseLinear::for_rows(Context& context, const Input& x, const SparseOutput& y, float* floats,
                            Finish&& finish) const {
  const size_t row_bytes = sizeof(float) * n();
  const int tile = sparse().tile;
  const Cut split = cut(x.m, false);
  if (split.across > 1) {  // few rows: not one thread for all columns of a tile
    SparseOutput whole = y;
    whole.floats = floats ? floats : reinterpret_cast<float*>(scratch(kScratchReal, x.m * row_bytes));
    multiply(context, x, whole);
    const int step = std::max(8, (x.m + 15) / 16);
    return context.parallel((x.m + step - 1) / step, [&](size_t i) {
      const int begin = static_cast<int>(i) * step, end = std::min(x.m, begin + step);
      finish(begin, end, whole.floats + static_cast<ptrdiff_t>(begin) * n());
    });
  }
  context.parallel(split.tiles, [&](size_t i) {
    const int begin = static_cast<int>(i) * tile, end = std::min(x.m, begin + tile);
    const ptrdiff_t at = static_cast<ptrdiff_t>(begin) * n();
    SparseOutput mine = y;
    if (y.x_scale) mine.x_scale += begin, mine.x_zero += begin;
    if (y.residual) mine.residual += at;
    mine.floats = floats ? floats + at : reinterpret_cast<float*>(scratch(kScratchReal, tile * row_bytes));
    const int k = weights().k;
    multiply_part(x.bytes + static_cast<ptrdiff_t>(begin) * k, k, 0, end - begin, 0, n(), mine);
    finish(begin, end, mine.floats);
  });
}

}  // namespace oc
