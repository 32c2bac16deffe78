// Block-sparse products with rows as lanes: a tile of activations is turned so that the same four bytes of kLanes rows
// lie side by side, [k / 4][row][4]; then a block's four weights, broadcast, serve all rows, and a block that is not
// there costs nothing.
#pragma once

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

// Most vectors of rows in a tile: 4 outputs x kTileVectors of sums leave registers for the operands.
#if defined(OC_AVX512)
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 2;
#endif
constexpr int kTileRows = kTileVectors * kLanes;

// kLanes vectors of 32-bit lanes: lane j of vector i becomes lane i of vector j.
OC_INLINE void transpose(vi* x) {
#if defined(OC_AVX512)
  vi y[16];
  unroll<4>([&](auto i) OC_LAMBDA {
    vi a = _mm512_unpacklo_epi32(x[i * 4], x[i * 4 + 1]), b = _mm512_unpackhi_epi32(x[i * 4], x[i * 4 + 1]);
    vi c = _mm512_unpacklo_epi32(x[i * 4 + 2], x[i * 4 + 3]), d = _mm512_unpackhi_epi32(x[i * 4 + 2], x[i * 4 + 3]);
    y[i] = _mm512_unpacklo_epi64(a, c), y[i + 4] = _mm512_unpackhi_epi64(a, c);
    y[i + 8] = _mm512_unpacklo_epi64(b, d), y[i + 12] = _mm512_unpackhi_epi64(b, d);
  });
  unroll<4>([&](auto j) OC_LAMBDA {  // y[j * 4 + i]: column j of each 4 x 4 square in the band of rows i
    vi a = _mm512_shuffle_i32x4(y[j * 4], y[j * 4 + 1], 0x88), b = _mm512_shuffle_i32x4(y[j * 4], y[j * 4 + 1], 0xdd);
    vi c = _mm512_shuffle_i32x4(y[j * 4 + 2], y[j * 4 + 3], 0x88);
    vi d = _mm512_shuffle_i32x4(y[j * 4 + 2], y[j * 4 + 3], 0xdd);
    x[j] = _mm512_shuffle_i32x4(a, c, 0x88), x[j + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    x[j + 4] = _mm512_shuffle_i32x4(b, d, 0x88), x[j + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  });
#elif defined(OC_AVX2)
  vi y[8];
  unroll<2>([&](auto i) OC_LAMBDA {
    vi a = _mm256_unpacklo_epi32(x[i * 4], x[i * 4 + 1]), b = _mm256_unpackhi_epi32(x[i * 4], x[i * 4 + 1]);
    vi c = _mm256_unpacklo_epi32(x[i * 4 + 2], x[i * 4 + 3]), d = _mm256_unpackhi_epi32(x[i * 4 + 2], x[i * 4 + 3]);
    y[i] = _mm256_unpacklo_epi64(a, c), y[i + 2] = _mm256_unpackhi_epi64(a, c);
    y[i + 4] = _mm256_unpacklo_epi64(b, d), y[i + 6] = _mm256_unpackhi_epi64(b, d);
  });
  unroll<4>([&](auto j) OC_LAMBDA {
    x[j] = _mm256_permute2x128_si256(y[j * 2], y[j * 2 + 1], 0x20);
    x[j + 4] = _mm256_permute2x128_si256(y[j * 2], y[j * 2 + 1], 0x31);
  });
#else
  int32_t a[kLanes][kLanes], b[kLanes][kLanes];
  std::memcpy(a, x, sizeof a);
  for (int i = 0; i < kLanes; i++)
    for (int j = 0; j < kLanes; j++) b[j][i] = a[i][j];
  std::memcpy(x, b, sizeof b);
#endif
}

// `count` bytes at p (at most those of a vector), zeros beyond.
OC_INLINE vi load_part(const uint8_t* p, int count) {
  if (count >= kLanes * 4) return load(p);
#if defined(OC_AVX512)
  return _mm512_maskz_loadu_epi8(count <= 0 ? 0 : (1ull << count) - 1, p);
#else
  uint8_t bytes[kLanes * 4] = {};
  if (count > 0) std::memcpy(bytes, p, count);
  return load(bytes);
#endif
}

OC_INLINE void store_part(uint8_t* p, vi x, int count) {
  if (count >= kLanes * 4) return store(p, x);
#if defined(OC_AVX512)
  _mm512_mask_storeu_epi8(p, count <= 0 ? 0 : (1ull << count) - 1, x);
#else
  uint8_t bytes[kLanes * 4];
  store(bytes, x);
  if (count > 0) std::memcpy(p, bytes, count);
#endif
}

// `count` rows of k bytes, `step` bytes apart, to lanes [ceil(k / 4)][pitch][4]; bytes beyond k are zeros.
inline void to_lanes(const uint8_t* x, int count, ptrdiff_t step, int k, int pitch, uint8_t* out) {
  const int quads = ceil_div(k, 4);
  for (int r = 0; r < count; r += kLanes)
    for (int q = 0; q < quads; q += kLanes) {
      vi rows[kLanes];
      unroll<kLanes>([&](auto i) OC_LAMBDA {
        rows[i] = r + i < count ? load_part(x + (r + i) * step + q * 4, k - q * 4) : zero();
      });
      transpose(rows);
      uint8_t* to = out + (static_cast<size_t>(q) * pitch + r) * 4;
      unroll<kLanes>([&](auto i) OC_LAMBDA {
        if (q + i < quads) store_part(to + static_cast<size_t>(i) * pitch * 4, rows[i], (count - r) * 4);
      });
    }
}

// Weights are read once a tile, and so from far away: the next groups' blocks are asked for in time. A byte of weights
// takes half a cycle: this is a quarter of a microsecond.
constexpr int kAhead = 2048;
OC_INLINE void prefetch_weights(const void* p) { __builtin_prefetch(p, 0, 3); }

// Sums [output][kTileRows] of one group of R outputs (1 or 4) by V vectors of rows, from its blocks. `step`: bytes from
// one block's weights to the next block's; address(column) is where the rows of that column of blocks begin;
// finish(output, vector, sum) is what is written.
template <int V, int R, class Address, class Finish>
OC_INLINE void multiply_blocks(const int8_t* w, ptrdiff_t step, const int32_t* column, int count,
                               const int32_t* initial, const Address& address, const Finish& finish, int32_t* out) {
  constexpr int kChains = R == 1 ? 4 : 1;  // one output's few sums would wait for each other
  vi sums[kChains * R * V];
  unroll<R>([&](auto r) OC_LAMBDA {
    vi start = broadcast4(initial + r);
    unroll<V>([&](auto v) OC_LAMBDA { sums[r * V + v] = start; });
  });
  unroll<(kChains - 1) * R * V>([&](auto i) OC_LAMBDA { sums[R * V + i] = zero(); });
  auto multiply = [&](const int8_t* weights, int32_t block, vi* to) OC_LAMBDA {
    const uint8_t* x = address(block);
    vi rows[V];
    unroll<V>([&](auto v) OC_LAMBDA { rows[v] = load(x + v * kLanes * 4); });
    unroll<R>([&](auto r) OC_LAMBDA {
      vi b = broadcast4(weights + r * 4);
      unroll<V>([&](auto v) OC_LAMBDA { to[r * V + v] = dot(to[r * V + v], rows[v], b); });
    });
  };
  int i = 0;
  if constexpr (kChains > 1) {
    for (; i + kChains <= count; i += kChains, w += kChains * step)
      unroll<kChains>([&](auto c) OC_LAMBDA { multiply(w + c * step, column[i + c], sums + c * R * V); });
  }
  if constexpr (R == 4)
    for (; i + 4 <= count; i += 4, w += 4 * step) {
      for (ptrdiff_t line = 0; line < 4 * step; line += 64) prefetch_weights(w + kAhead + line);
      prefetch_weights(column + i + kAhead / 16);
      unroll<4>([&](auto b) OC_LAMBDA { multiply(w + b * step, column[i + b], sums); });
    }
  for (; i < count; i++, w += step) multiply(w, column[i], sums);
  unroll<R * V>([&](auto j) OC_LAMBDA {
    vi sum = sums[j];
    unroll<kChains - 1>([&](auto c) OC_LAMBDA { sum = add(sum, sums[(c + 1) * R * V + j]); });
    store(out + j / V * kTileRows + j % V * kLanes, finish(j / V, j % V, sum));
  });
}

}  // namespace
}  // namespace oc::OC_ISA
