#include "cuda/linear_pack.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace oc::cuda {

void pack_linear(const int8_t* w, int n, int k, int8_t* packed, int32_t* weight_sums) {
  std::memset(packed, 0, packed_linear_bytes(n, k));
  const int64_t deep = slabs_of(k, kSlabDepth);
  for (int64_t output = 0; output < n; ++output) {
    const int8_t* row = w + output * k;
    weight_sums[output] = std::accumulate(row, row + k, 0);
    int8_t* slabs = packed + output / kSlabOutputs * deep * kSlabBytes + output % kSlabOutputs * kSlabDepth;
    for (int64_t slab = 0; slab < deep; ++slab) {
      const int64_t first = slab * kSlabDepth;
      std::copy_n(row + first, std::min<int64_t>(kSlabDepth, k - first), slabs + slab * kSlabBytes);
    }
  }
}

}  // namespace oc::cuda
