// How rows of x come to the kernels of block-sparse layers.
#pragma once

#include "cuda/block_sparse.hpp"
#include "cuda/device.hpp"

namespace oc::cuda::block_sparse {

// Bytes k .. k + 15 of row m of x; `fill` repeated for bytes and rows that are not there. wide: x and its rows are
// aligned to 16 bytes.
__device__ __forceinline__ uint4 load_input(const BlockSparseLinear& c, int m, int k, uint32_t fill, bool wide) {
  const int depth = c.weights.depth;
  if (m >= c.rows || k >= depth) return make_uint4(fill, fill, fill, fill);
  const uint8_t* const from = c.x + int64_t{m} * depth + k;
  if (wide) return *reinterpret_cast<const uint4*>(from);
  uint32_t words[4];
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    words[w] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t byte = k + w * 4 + i < depth ? from[w * 4 + i] : fill & 255u;
      words[w] |= byte << 8 * i;
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace oc::cuda::block_sparse
