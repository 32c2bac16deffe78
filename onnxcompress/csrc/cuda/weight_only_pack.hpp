// Weights of 4 and 8 bits as the kernels of weight_only.hpp read them. Plain C++, done once per layer on the host.
#pragma once

#include <cstdint>
#include <vector>

namespace oc::cuda {

// A matrix [n][k] as models store it: weight = (code - zero point) * scale of its block along k.
struct WeightOnlySource {
  int bits = 4;                         // 4 or 8
  int n = 0, k = 0;                     // both positive
  int block = 0;                        // 32, 64 or 128; 0: one scale an output
  const uint8_t* codes = nullptr;       // 4 bits: [n][(k + 1) / 2], the first of a pair in the low half; 8: [n][k]
  bool is_signed = false;               // 8 bits: codes and zero points are two's complement
  const float* scale = nullptr;         // [n][blocks], finite; any sign
  const uint8_t* zero_point = nullptr;  // [n][blocks], a byte each; null: 8 and 128, where signed 0

  int blocks() const { return block ? (k + block - 1) / block : 1; }
};

// The layout serves both kernels. Rows go in tiles of 16, k in steps of 64 of two chunks of 32. A lane of a warp has
// eight k of a chunk and two rows of a tile, which lie together. Within eight k the codes lie so that a mask and a
// shift leave pairs of consecutive k in the halves of a word (weight_only_decode.hpp).
//
// Lane l has k = 8 (l % 4) + [0, 8) of a chunk, and rows wide_row(l / 4, 0) and wide_row(l / 4, 1) of a tile: in this
// order a lane finds four neighbouring outputs in the accumulators of two mma instructions, and stores them at once.
struct PackedWeightOnly {
  int bits = 4, n = 0, k = 0;      // n: rows, both matrices' where there are two
  int blocks = 1;                  // along k
  int chunk_shift = 0;             // chunk >> chunk_shift is its block
  std::vector<uint32_t> words;     // [tiles][steps][chunk][lane][row][bits / 4]
  std::vector<uint16_t> scale;     // halves [tiles][blocks][l / 4][row], over `channel`
  std::vector<uint8_t> zero_point; // the same; none where it is the middle code for all
  std::vector<float> channel;      // [16 * tiles]

  int tiles() const { return (n + 15) / 16; }
  int steps() const { return (k + 63) / 64; }
};

constexpr int wide_row(int g, int half) { return 4 * (g / 2) + 2 * half + g % 2; }

// Scales come out exactly, if they are halves or one for each output; else within 2^-11: a power of two for each
// output (`channel`) keeps them in the range of a half.
PackedWeightOnly pack_weight_only(const WeightOnlySource& source);

// Two matrices of one shape, block and kind as one, rows in turn: for `gated` layers, gate first.
PackedWeightOnly pack_weight_only(const WeightOnlySource& gate, const WeightOnlySource& up);

}  // namespace oc::cuda
