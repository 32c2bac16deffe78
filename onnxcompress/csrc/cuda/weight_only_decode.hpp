// From packed codes to pairs of halves, and the arrays of weights that one step along k copies to shared memory.
#pragma once

#include <cstring>

#include "cuda/device.hpp"
#include "cuda/weight_only.hpp"

namespace oc::cuda {

constexpr int kTileRows = 16, kChunkK = 32, kStepK = 64, kStepChunks = kStepK / kChunkK;
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ half2 as_halves(uint32_t word) {
  half2 halves;
  memcpy(&halves, &word, sizeof word);
  return halves;
}

__device__ __forceinline__ uint32_t as_word(half2 halves) {
  uint32_t word;
  memcpy(&word, &halves, sizeof word);
  return word;
}

// Words that hold eight codes.
template <int kBits>
constexpr int kCodeWords = kBits / 4;

// The same zero point in two halves, as decode() subtracts it.
struct ZeroPoint {
  half2 from_1024, from_64;  // 1024 + zero, -(64 + zero)
};

template <int kBits>
__device__ __forceinline__ ZeroPoint zero_point(uint32_t code) {
  // A half of 1024 to 2047 counts in ones, of 64 to 127 in sixteenths: the code is its mantissa.
  return {as_halves(0x64006400u + code * 0x00010001u), as_halves(0xd400d400u + (kBits == 4 ? code * 0x00100010u : 0))};
}

// pairs[i] = code - zero point of k = 2i and 2i + 1, exactly. `codes`: this lane's eight of a chunk and a row.
template <int kBits>
__device__ __forceinline__ void decode(const uint32_t* codes, const ZeroPoint& zero, uint32_t (&pairs)[4]) {
  constexpr uint32_t k1024 = 0x64006400u, kSixteenth = 0x2c002c00u;
  if constexpr (kBits == 4) {
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = codes[0] >> 8 * i;
      pairs[2 * i] = as_word(__hsub2(as_halves((word & 0x000f000fu) | k1024), zero.from_1024));
      const half2 sixteenfold = as_halves((word & 0x00f000f0u) | k1024);  // 1024 + 16 code
      pairs[2 * i + 1] = as_word(__hfma2(sixteenfold, as_halves(kSixteenth), zero.from_64));
    }
  } else {
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = codes[i / 2] >> 8 * (i % 2);
      pairs[i] = as_word(__hsub2(as_halves((word & 0x00ff00ffu) | k1024), zero.from_1024));
    }
  }
}

// Words of a lane in a chunk, [row][kCodeWords]: one load.
template <int kBits>
struct alignas(2 * kBits) LaneWords {
  uint32_t words[2 * kCodeWords<kBits>];

  __device__ __forceinline__ const uint32_t* of(int row) const { return words + row * kCodeWords<kBits>; }
};

// One step of kTiles neighbouring tiles in shared memory, in the order of PackedWeightOnly.
template <int kBits, int kTiles>
struct alignas(16) WeightStage {
  static constexpr int kCopies = kStepChunks * kWarp * static_cast<int>(sizeof(LaneWords<kBits>)) / 16;  // of a tile
  LaneWords<kBits> words[kTiles][kStepChunks][kWarp];
  half scale[kTiles][kStepChunks][kTileRows];
  uint8_t zero_point[kTiles][kStepChunks][kTileRows];
};

// What a lane needs of the blocks of its two rows in a chunk.
template <int kBits>
struct LaneBlocks {
  half2 scale;  // of row 0, of row 1
  ZeroPoint zero[2];

  template <int kTiles>
  __device__ __forceinline__ LaneBlocks(const WeightStage<kBits, kTiles>& stage, bool has_zero_point, int tile,
                                        int chunk, int g) {
    scale = *reinterpret_cast<const half2*>(&stage.scale[tile][chunk][2 * g]);
    for (int row = 0; row < 2; ++row) {
      const uint32_t code = has_zero_point ? stage.zero_point[tile][chunk][2 * g + row] : 1u << (kBits - 1);
      zero[row] = zero_point<kBits>(code);
    }
  }
};

// Copies one step of the tiles from `tile` on; `thread` of `threads` (at least 16) does its share. Zeros beyond them.
// Its loops stay loops: what the compiler would keep of them in registers is missing elsewhere.
template <int kBits, int kTiles>
__device__ __forceinline__ void copy_weights(WeightStage<kBits, kTiles>& stage, const WeightOnlyMatrix& w, int tile,
                                             int step, int thread, int threads) {
  constexpr int kCopies = WeightStage<kBits, kTiles>::kCopies, kScales = 2;  // kScales: copies of a tile's block
  const int tiles = (w.n + kTileRows - 1) / kTileRows, steps = (w.k + kStepK - 1) / kStepK;
  const auto* words = static_cast<const uint4*>(w.words);
  const auto* scale = static_cast<const half*>(w.scale);
#pragma unroll 1
  for (int i = thread; i < kTiles * kCopies; i += threads) {
    const int within = i / kCopies, at = i % kCopies;
    const bool valid = tile + within < tiles;
    const int64_t from = (static_cast<int64_t>(valid ? tile + within : 0) * steps + step) * kCopies + at;
    copy_async16(reinterpret_cast<uint4*>(stage.words) + i, words + from, valid);
  }
#pragma unroll 1
  for (int i = thread; i < kTiles * kStepChunks * kScales; i += threads) {
    const int within = i / (kStepChunks * kScales), chunk = i / kScales % kStepChunks, part = i % kScales;
    const int block = (step * kStepChunks + chunk) >> w.chunk_shift;
    const bool valid = tile + within < tiles && block < w.blocks;
    const int64_t from = valid ? (static_cast<int64_t>(tile + within) * w.blocks + block) * kTileRows : 0;
    copy_async16(&stage.scale[within][chunk][8 * part], scale + from + 8 * part, valid);
    if (w.zero_point && part == 0) copy_async16(stage.zero_point[within][chunk], w.zero_point + from, valid);
  }
}

// Eight halves of a row of x, from `k` on: zeros beyond its end, and all zeros where not valid. Rows of a length that
// is no multiple of 8 are not aligned: they are copied by hand, where kAnyLength allows for them.
template <bool kAnyLength>
__device__ __forceinline__ void copy_row_part(half* shared, const half* row, int k, int row_k, bool valid) {
  if (kAnyLength && row_k % 8 != 0) {
#pragma unroll 1
    for (int i = 0; i < 8; ++i) {
      shared[i] = valid && k + i < row_k ? row[k + i] : __ushort_as_half(static_cast<unsigned short>(0));
    }
    return;
  }
  const bool within = valid && k < row_k;
  copy_async16(shared, within ? row + k : row, within);
}

}  // namespace oc::cuda
