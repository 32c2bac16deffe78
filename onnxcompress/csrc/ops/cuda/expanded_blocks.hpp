// Block-sparse weights with their zeros, for layers that are served better by the dense kernels.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/sparse_layer.hpp"

namespace oc {

// s8 [n, k]; throws Error where that would be too large.
inline std::vector<int8_t> expand_blocks(const SparseWeights& w) {
  constexpr int64_t kMostBytes = int64_t{1} << 32;
  require(int64_t{w.n} * w.k <= kMostBytes, "the weights are too large");
  std::vector<int8_t> dense(size_t(w.n) * w.k);
  const int groups = (w.n + w.block - 1) / w.block;
  for (int g = 0; g < groups; g++)
    for (int32_t i = w.row_start[g]; i < w.row_start[g + 1]; i++) {
      const int first = w.column[i] * 4, count = std::min(4, w.k - first), rows = std::min(w.block, w.n - g * w.block);
      for (int r = 0; r < rows; r++)
        std::copy_n(w.values + (size_t(i) * w.block + r) * 4, count,
                    dense.data() + (size_t(g) * w.block + r) * w.k + first);
    }
  return dense;
}

}  // namespace oc
