// Weights of a linear layer as the kernels of linear.cu read them. Host code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/host_device.hpp"

namespace oc::cuda {

// Packed weights are slabs of 8 outputs by 64 of K, [ceil(n / 8)][ceil(k / 64)][8][64] bytes, zeros beyond n and k.
// The 512 bytes of a slab are 16 for each lane of a warp, in order: lane 4g + t holds output g, K 16t .. 16t + 15.
//
// A tensor core wants bytes 4t .. 4t + 3 of each 16 in lane t instead. Its sum over K does not depend on the order of
// K, as long as both factors are in the same one: word i of a lane's 16 bytes serves as K 16i + 4t .. of what the
// instructions take, of the weights and of x alike. So both factors are read 16 bytes at a time, without bank
// conflicts, and from memory as it lies.
constexpr int kSlabOutputs = 8, kSlabDepth = 64, kSlabBytes = kSlabOutputs * kSlabDepth;

OC_HOST_DEVICE constexpr int64_t slabs_of(int64_t size, int slab) { return (size + slab - 1) / slab; }

constexpr size_t packed_linear_bytes(int n, int k) {
  return static_cast<size_t>(slabs_of(n, kSlabOutputs) * slabs_of(k, kSlabDepth)) * kSlabBytes;
}

// w: [n, k]. packed: packed_linear_bytes(n, k) bytes. weight_sums: [n], the sum of every row.
void pack_linear(const int8_t* w, int n, int k, int8_t* packed, int32_t* weight_sums);

}  // namespace oc::cuda
