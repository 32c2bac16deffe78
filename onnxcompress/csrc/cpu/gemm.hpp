// Products of unsigned bytes by signed bytes: the core of linear layers and of convolutions.
//
// Weights [n][k] are packed into panels of kPanel vectors of output columns, [panel][segment][k / 4][vector][lane][4],
// so that one load brings four bytes of k for every lane. A tile keeps rows x vectors of sums in registers, loads the
// panel's vectors once for all its rows and broadcasts four bytes of each row. A row of activations may lie in several
// segments, `pitch` bytes apart: the rows ky of a convolution's window. What becomes of the sums is the sink's affair.
#pragma once

#include "cpu/simd.hpp"

namespace oc {

// Packed weights. k counts the bytes of one segment, a multiple of 4; `initial` is what each sum starts from, padded
// with zeros to whole vectors (the zero point of the activations: -zero_point * sum of the weights).
struct PackedWeights {
  const int8_t* data;
  const int32_t* initial;
  int n, k, segments;
};

// The same with signed 16-bit weights, in pairs, for rows of such activations: sums are taken modulo 2^32.
struct PackedWords : PackedWeights {};

// Rows of unsigned bytes; of each, `segments` pieces of k bytes that are `pitch` apart.
struct Rows {
  const uint8_t* data;
  ptrdiff_t stride, pitch;
};

}  // namespace oc

namespace oc::OC_ISA {
namespace {

#if defined(OC_AVX512)
constexpr int kPanel = 4;
constexpr int kMostRows[5] = {0, 14, 12, 8, 6};  // rows x vectors of sums leave registers for weights and a broadcast
#else
constexpr int kPanel = 2;
constexpr int kMostRows[3] = {0, 4, 3};
#endif

OC_INLINE int padded(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

// w is [n][segments][k_in]; each segment is padded with zero weights to k bytes.
inline void pack_weights(const int8_t* w, int n, int segments, int k_in, int k, int8_t* out) {
  for (int n0 = 0; n0 < n; n0 += kPanel * kLanes) {
    const int vectors = least(kPanel, (padded(n) - n0) / kLanes);
    for (int s = 0; s < segments; s++)
      for (int j = 0; j < k; j += 4)
        for (int c = n0; c < n0 + vectors * kLanes; c++)
          for (int b = j; b < j + 4; b++)
            *out++ = c < n && b < k_in ? w[(static_cast<size_t>(c) * segments + s) * k_in + b] : 0;
  }
}

// Pointers into MR rows: one for every four rows, which addressing with one and three strides reaches. Left alone the
// compiler takes an offset for each row, and runs out of registers.
template <int MR>
struct RowPointers {
  static constexpr int kCount = (MR + 3) / 4;
  const uint8_t* first[kCount];
  ptrdiff_t stride, three;

  OC_INLINE RowPointers(const uint8_t* row, ptrdiff_t row_stride) : stride(row_stride), three(3 * row_stride) {
    unroll<kCount>([&](auto i) OC_LAMBDA {
      first[i] = row + i * 4 * row_stride;
      asm("" : "+r"(first[i]));
    });
    asm("" : "+r"(three));
  }
  OC_INLINE const uint8_t* at(int m) const { return first[m / 4] + (m % 4 == 3 ? three : (m % 4) * stride); }
  OC_INLINE void advance() {
    unroll<kCount>([&](auto i) OC_LAMBDA { first[i] += 4; });
  }
};

OC_INLINE vi product(const PackedWeights&, vi sum, vi x, vi w) { return dot(sum, x, w); }
OC_INLINE vi product(const PackedWords&, vi sum, vi x, vi w) { return dot_words(sum, x, w); }

// `tiles` tiles of MR rows from `row` on, against NV vectors of one panel, which has `Width`. `ahead` walks through the
// next panel to bring it into L2.
template <int MR, int NV, int Width = NV, class Weights, class Sink>
__attribute__((noinline)) void multiply(const Rows& rows, const Weights& weights, const int8_t* panel, int column,
                                        int row, int tiles, const int8_t* ahead, int step, const Sink& sink) {
  for (int t = 0; t < tiles; t++, row += MR) {
    vi sums[MR * NV];
    unroll<NV>([&](auto v) OC_LAMBDA {
      vi start = load(weights.initial + column + v * kLanes);
      unroll<MR>([&](auto m) OC_LAMBDA { sums[m * NV + v] = start; });
    });
    const int8_t* w = panel;
    const uint8_t* segment = rows.data + row * rows.stride;
    for (int s = 0; s < weights.segments; s++, segment += rows.pitch) {
      RowPointers<MR> a(segment, rows.stride);
      for (int k = 0; k < weights.k; k += 4, w += Width * kLanes * 4, a.advance()) {
        vi b[NV];
        unroll<NV>([&](auto v) OC_LAMBDA { b[v] = load(w + v * kLanes * 4); });
        if constexpr (MR <= 2) {  // weights are used once, at the speed of memory: left alone they come late
          unroll<NV>([&](auto v) OC_LAMBDA { __builtin_prefetch(w + 2048 + v * kLanes * 4, 0, 3); });
        } else {
          prefetch(ahead);
          if (__builtin_expect(step > 64, false))  // few tiles have more than a line to bring each
            for (int line = 64; line < step; line += 64) prefetch(ahead + line);
        }
        ahead += step;
        unroll<MR>([&](auto m) OC_LAMBDA {
          vi x = broadcast4(a.at(m));
          unroll<NV>([&](auto v) OC_LAMBDA { sums[m * NV + v] = product(weights, sums[m * NV + v], x, b[v]); });
        });
      }
    }
    if constexpr (requires { sink.template tile<MR, NV>(row, column, sums); })
      sink.template tile<MR, NV>(row, column, sums);
    else
      unroll<MR>([&](auto m) OC_LAMBDA { sink.template operator()<NV>(row + m, column, sums + m * NV); });
  }
}

#if defined(OC_AVX512)
// Seven rows against half a panel at a time: the lines of images 7 pixels wide. As tiles of 4 and 3 rows they would read
// the panel from L2 faster than that gives it.
constexpr int kSeven = 7;

template <class Weights, class Sink>
void multiply_seven(const Rows& rows, const Weights& weights, const int8_t* panel, int column, int row,
                    const int8_t* ahead, int step, const Sink& sink) {
  constexpr int kHalf = kPanel / 2;
  unroll<2>([&](auto half) OC_LAMBDA {
    multiply<kSeven, kHalf, kPanel>(rows, weights, panel + half * kHalf * kLanes * 4, column + half * kHalf * kLanes, row,
                                    1, ahead, step, sink);
    ahead += static_cast<ptrdiff_t>(step) * (weights.k / 4) * weights.segments;
  });
}
#endif

// Rows [begin, end) against one panel, in as few kinds of tiles as possible: whole ones, then smaller ones. Where the
// panel is gone through `parts` times, this is the time `part`: each brings its share of the next panel into L2.
template <int NV, class Weights, class Sink>
void multiply_panel(const Rows& rows, const Weights& weights, const int8_t* panel, int column, int begin, int end,
                    const Sink& sink, int part = 0, int parts = 1) {
  constexpr int most = kMostRows[NV];
  const int count = end - begin;
  const ptrdiff_t bytes = static_cast<ptrdiff_t>(NV) * kLanes * weights.k * weights.segments;
  const int8_t* ahead = panel + bytes + bytes / parts * part;
#if defined(OC_AVX512)
  if constexpr (NV == kPanel) {
    if (count == kSeven)
      return multiply_seven(rows, weights, panel, column, begin, ahead, ceil_div(NV * kLanes * 4, 2 * parts), sink);
  }
#endif
  int whole = count / most, rest = count % most;
  if (most == 6 && whole && (rest == 1 || rest == 2)) whole--, rest += most;  // 4 + 3 or 4 + 4 rather than 6 + 1
  const int tiles = whole + (rest + 3) / 4;
  const int step = tiles ? ceil_div(NV * kLanes * 4, tiles * parts) : 0;
  int row = begin;
  auto run = [&](auto m, int times) OC_LAMBDA {
    multiply<m, NV>(rows, weights, panel, column, row, times, ahead, step, sink);
    row += m * times;
    ahead += static_cast<ptrdiff_t>(step) * (weights.k / 4) * weights.segments * times;
  };
  if (whole) run(Index<most>{}, whole);
  if constexpr (most > 8) {
    if (rest >= 8) run(Index<8>{}, 1), rest -= 8;
  }
  if constexpr (most > 4) {
    if (rest == 5 && most == 6) run(Index<5>{}, 1), rest = 0;
    while (rest >= 4) run(Index<4>{}, 1), rest -= 4;
  }
  if constexpr (most > 3) {
    if (rest == 3) run(Index<3>{}, 1), rest = 0;
  }
  if (rest >= 2) run(Index<2>{}, 1), rest -= 2;
  if (rest) run(Index<1>{}, 1);
}

// fn(number of vectors, panel, column) for each panel of the columns [begin, end); begin is a multiple of whole panels.
template <class Fn>
OC_INLINE void each_panel(const PackedWeights& weights, int begin, int end, Fn&& fn) {
  const size_t bytes = static_cast<size_t>(weights.k) * weights.segments;
  for (int column = begin; column < end; column += kPanel * kLanes) {
    const int8_t* panel = weights.data + column * bytes;
    const int vectors = least(kPanel, (padded(weights.n) - column) / kLanes);
    if (vectors == kPanel) fn(Index<kPanel>{}, panel, column);
    else if (vectors == 1) fn(Index<1>{}, panel, column);
#if defined(OC_AVX512)
    else if (vectors == 2) fn(Index<2>{}, panel, column);
    else if (vectors == 3) fn(Index<3>{}, panel, column);
#endif
  }
}

// Rows [begin, end) against all columns. A sink takes sink.tile<MR, NV>(row, column, MR x NV vectors of sums), or
// sink<NV>(row, column, NV vectors of sums) for every row of the tile; `column` is a multiple of kLanes, and the last
// vectors may reach beyond n.
template <class Sink>
void multiply_rows(const Rows& rows, const PackedWeights& weights, int begin, int end, int column_begin, int column_end,
                   const Sink& sink) {
  each_panel(weights, column_begin, column_end, [&](auto vectors, const int8_t* panel, int column) OC_LAMBDA {
    multiply_panel<vectors>(rows, weights, panel, column, begin, end, sink);
  });
}

}  // namespace
}  // namespace oc::OC_ISA
