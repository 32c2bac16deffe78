// The mask of a QAttention node, the same for every provider.
#pragma once

#include "ort/op.hpp"

namespace oc {

// Throws Error where a mask that keeps keys is not [batch, keys].
inline void check_key_mask(const Tensor& mask, int64_t batch, int64_t keys) {
  require(mask.rank() == 2 && mask.dim(0) == batch && mask.dim(1) == keys, "mask must be [batch, keys]");
}

// How far apart the scores' rows of two batches and of two heads lie in a mask that is added; 0 where they share one.
struct AddedMask {
  int64_t rows, batch_stride, head_stride;  // rows: of queries, 1 where they share one

  // Throws Error where it is not float [batch or 1, heads or 1, keys or 1, keys].
  AddedMask(const Tensor& mask, int64_t batch, int64_t heads, int64_t keys) {
    require(mask.type == kF32, "a mask that is added must be float");
    const bool fits = mask.rank() == 4 && (mask.dim(0) == batch || mask.dim(0) == 1) &&
                      (mask.dim(1) == heads || mask.dim(1) == 1) && (mask.dim(2) == keys || mask.dim(2) == 1) &&
                      mask.dim(3) == keys;
    require(fits, "mask must be [batch or 1, heads or 1, queries or 1, keys]");
    rows = mask.dim(2);
    head_stride = mask.dim(1) == 1 ? 0 : rows * keys;
    batch_stride = mask.dim(0) == 1 ? 0 : mask.dim(1) * rows * keys;
  }
};

}  // namespace oc
