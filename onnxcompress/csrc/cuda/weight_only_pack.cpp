#include "cuda/weight_only_pack.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace oc::cuda {
namespace {

constexpr int kRows = 16, kChunk = 32, kStep = 64;

// To nearest, ties to even. |x| < 65520.
uint16_t to_half(double x) {
  const int sign = std::signbit(x) ? 0x8000 : 0;
  const double size = std::fabs(x);
  const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return static_cast<uint16_t>(sign | (steps < 1024 ? steps : (exponent + 14) * 1024 + steps));
}

// Row `index` of all: in turn from the matrices.
struct Rows {
  const WeightOnlySource* sources[2];
  int count;

  const WeightOnlySource& source(int index) const { return *sources[index % count]; }

  int code(int index, int k) const {
    const WeightOnlySource& s = source(index);
    const int64_t row = index / count;
    if (s.bits == 4) return s.codes[row * ((s.k + 1) / 2) + k / 2] >> 4 * (k % 2) & 15;
    return s.codes[row * s.k + k] ^ (s.is_signed ? 128 : 0);
  }

  int zero_point(int index, int block) const {
    const WeightOnlySource& s = source(index);
    if (!s.zero_point) return s.bits == 4 ? 8 : 128;
    return s.zero_point[static_cast<int64_t>(index / count) * s.blocks() + block] ^ (s.is_signed ? 128 : 0);
  }

  const float* scale(int index) const {
    const WeightOnlySource& s = source(index);
    return s.scale + static_cast<int64_t>(index / count) * s.blocks();
  }
};

// Where the i-th of eight consecutive codes begins in the bits of their word, or of theirs of two words.
int bit_of(int bits, int i) {
  if (bits == 4) return 4 * (i / 2) + 16 * (i % 2);
  return 8 * (i / 2 % 2) + 16 * (i % 2);
}

void pack_words(const Rows& rows, PackedWeightOnly& packed) {
  const int per_word = 32 / packed.bits, words = 8 / per_word;
  size_t at = 0;
  for (int tile = 0; tile < packed.tiles(); ++tile) {
    for (int step = 0; step < packed.steps(); ++step) {
      for (int i = 0; i < 64; ++i) {  // chunk, lane
        for (int j = 0; j < 2 * words; ++j, ++at) {  // row, word
          const int lane = i % 32, n = tile * kRows + wide_row(lane / 4, j / words);
          const int first = step * kStep + i / 32 * kChunk + 8 * (lane % 4);
          for (int c = j % words * per_word, end = c + per_word; c < end; ++c) {
            if (n >= packed.n || first + c >= packed.k) continue;  // any code will do: x is taken for zero there
            packed.words[at] |= static_cast<uint32_t>(rows.code(n, first + c)) << bit_of(packed.bits, c);
          }
        }
      }
    }
  }
}

void pack_scales(const Rows& rows, PackedWeightOnly& packed) {
  for (int n = 0; n < packed.n; ++n) {
    const float* scale = rows.scale(n);
    float largest = 0;
    for (int b = 0; b < packed.blocks; ++b) largest = std::max(largest, std::fabs(scale[b]));
    float channel = largest > 0 ? std::ldexp(1.f, std::ilogb(largest)) : 1.f;
    if (packed.blocks == 1 && largest > 0) channel = scale[0];
    packed.channel[n] = channel;
    for (int b = 0; b < packed.blocks; ++b) {
      const int within = n % kRows, row = within / 2 % 2, g = 2 * (within / 4) + within % 2;
      const size_t at = (static_cast<size_t>(n / kRows) * packed.blocks + b) * kRows + 2 * g + row;
      packed.scale[at] = to_half(static_cast<double>(scale[b]) / channel);
      if (!packed.zero_point.empty()) packed.zero_point[at] = static_cast<uint8_t>(rows.zero_point(n, b));
    }
  }
}

PackedWeightOnly pack(const Rows& rows) {
  const WeightOnlySource& first = *rows.sources[0];
  PackedWeightOnly packed;
  packed.bits = first.bits, packed.n = first.n * rows.count, packed.k = first.k, packed.blocks = first.blocks();
  packed.chunk_shift = first.block ? std::countr_zero(static_cast<unsigned>(first.block / kChunk)) : 30;
  const size_t tiles = static_cast<size_t>(packed.tiles());
  packed.words.resize(tiles * packed.steps() * (kRows * kStep) / (32 / packed.bits));
  packed.scale.resize(tiles * packed.blocks * kRows);
  if (first.zero_point) packed.zero_point.resize(packed.scale.size());
  packed.channel.resize(tiles * kRows);
  pack_words(rows, packed);
  pack_scales(rows, packed);
  return packed;
}

}  // namespace

PackedWeightOnly pack_weight_only(const WeightOnlySource& source) { return pack({{&source, &source}, 1}); }

PackedWeightOnly pack_weight_only(const WeightOnlySource& gate, const WeightOnlySource& up) {
  return pack({{&gate, &up}, 2});
}

}  // namespace oc::cuda
