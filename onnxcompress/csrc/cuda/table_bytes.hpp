// Bytes, several at once, and tables of 256 of them; what the kernels of element-wise operators are made of.
#pragma once

#include "cuda/device.hpp"
#include "cuda/table.hpp"

namespace oc::cuda {

// Blocks of `of_block` items that hold all `items`.
inline unsigned blocks_of(int64_t items, int64_t of_block) {
  return static_cast<unsigned>((items + of_block - 1) / of_block);
}

// kCount bytes (1, 4, 8 or 16) in words of four, the first in the lowest bits. Those of 1 byte have zeros behind it.
template <int kCount>
struct Bytes {
  static constexpr int kWords = (kCount + 3) / 4;
  uint32_t words[kWords];

  __device__ __forceinline__ int get(int i) const { return static_cast<int>(words[i / 4] >> i % 4 * 8 & 255); }
  // Of bytes that are zero so far.
  __device__ __forceinline__ void add(int i, uint8_t byte) { words[i / 4] |= static_cast<uint32_t>(byte) << i % 4 * 8; }
};

// From and to addresses that are aligned to kCount, in one access.
template <int kCount>
__device__ __forceinline__ Bytes<kCount> load_bytes(const uint8_t* from) {
  if constexpr (kCount == 16) {
    const uint4 all = *reinterpret_cast<const uint4*>(from);
    return {{all.x, all.y, all.z, all.w}};
  } else if constexpr (kCount == 8) {
    const uint2 all = *reinterpret_cast<const uint2*>(from);
    return {{all.x, all.y}};
  } else if constexpr (kCount == 4) {
    return {{*reinterpret_cast<const uint32_t*>(from)}};
  } else {
    return {{*from}};
  }
}

template <int kCount>
__device__ __forceinline__ void store_bytes(uint8_t* to, const Bytes<kCount>& bytes) {
  if constexpr (kCount == 16) {
    *reinterpret_cast<uint4*>(to) = make_uint4(bytes.words[0], bytes.words[1], bytes.words[2], bytes.words[3]);
  } else if constexpr (kCount == 8) {
    *reinterpret_cast<uint2*>(to) = make_uint2(bytes.words[0], bytes.words[1]);
  } else if constexpr (kCount == 4) {
    *reinterpret_cast<uint32_t*>(to) = bytes.words[0];
  } else {
    *to = static_cast<uint8_t>(bytes.words[0]);
  }
}

// From any address, one by one: the first `count` of them, the others zero.
template <int kCount>
__device__ __forceinline__ Bytes<kCount> load_each(const uint8_t* from, int64_t count) {
  Bytes<kCount> bytes{};
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) bytes.add(i, from[i]);
  }
  return bytes;
}

// Aligned where all of them are there; else the first `count`.
template <int kCount>
__device__ __forceinline__ Bytes<kCount> load_bytes(const uint8_t* from, int64_t count) {
  return count >= kCount ? load_bytes<kCount>(from) : load_each<kCount>(from, count);
}

template <int kCount>
__device__ __forceinline__ void store_bytes(uint8_t* to, const Bytes<kCount>& bytes, int64_t count) {
  if (count >= kCount) return store_bytes(to, bytes);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) to[i] = static_cast<uint8_t>(bytes.get(i));
  }
}

struct alignas(4) ByteTable {
  uint8_t values[kTableBytes];
};

// All threads of a block: a table to shared memory, ready behind the next __syncthreads(). Nothing where it is null.
__device__ __forceinline__ void load_table(ByteTable& shared, const uint8_t* table) {
  if (!table) return;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < kTableBytes; i += static_cast<int>(blockDim.x) * 4) {
    store_bytes(shared.values + i, load_bytes<4>(table + i));
  }
}

template <int kCount>
__device__ __forceinline__ Bytes<kCount> look_up(const ByteTable& table, const Bytes<kCount>& x) {
  Bytes<kCount> y{};
#pragma unroll
  for (int i = 0; i < kCount; ++i) y.add(i, table.values[x.get(i)]);
  return y;
}

}  // namespace oc::cuda
