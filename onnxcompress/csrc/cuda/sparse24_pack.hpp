// 2:4 sparse weights as the kernels of sparse24.cu read them. Host code.
#pragma once

#include "cuda/linear_pack.hpp"

namespace oc::cuda {

// Packed weights are blocks of 16 outputs by 64 of K, [ceil(n / 16)][ceil(k / 64)], of 640 bytes: 16 bytes of stored
// weights for each lane of a warp, registers a[0] .. a[3] of mma_sparse_s8u8, then its 4 bytes of metadata. K is in the
// order of linear_pack.hpp: group 4i + t of 4 columns of what the instruction takes is K 16t + 4i .. 16t + 4i + 3.
constexpr int kSparseOutputs = 16, kSparseValueBytes = 512, kSparseBytes = 640;

constexpr size_t packed_sparse24_bytes(int n, int k) {
  return static_cast<size_t>(slabs_of(n, kSparseOutputs) * slabs_of(k, kSlabDepth)) * kSparseBytes;
}

// w: [n, k]. packed: packed_sparse24_bytes(n, k) bytes. weight_sums: [n], the sum of every row.
// False where some 4 weights, beginning at a multiple of 4, have more than 2 that are not zero.
[[nodiscard]] bool pack_sparse24(const int8_t* w, int n, int k, int8_t* packed, int32_t* weight_sums);

}  // namespace oc::cuda
