// Depthwise convolutions by dot products of four vertically adjacent taps.
//
// A window of kh rows is cut into quads of four rows. The bytes of a quad are interleaved once per column of the input,
// [vector of 16 channels][column][quad][channel][4], into scratch memory that stays in L1. There they serve every kx
// and `rows` rows of the output, for which the weights are shifted copies: a quad that covers rows 0 to 3 holds the
// taps of 3 x 3 windows at row 0 (with a zero behind them) and at row 1 (with a zero before). Packed weights are
// [vector][kx][quad][row of the output][channel][4].
#pragma once

#include "cpu/depthwise.hpp"
#include "cpu/depthwise_interleave.hpp"

namespace oc::OC_ISA {
namespace {
namespace columns {

constexpr int kChunk = 64;         // channels that are interleaved in one go: a cache line of a pixel
constexpr int kBudget = 20 << 10;  // bytes of interleaved columns, which leave room in L1 for the weights and rows
constexpr int kPixels = 4;         // of the output that share each load of weights

OC_INLINE int quads(const DepthwiseWindow& w, int rows) {
  return ceil_div(w.kh + (rows - 1) * w.stride_h, 4);
}

// As many rows of the output as need no more quads than one row does. Dilated windows of neighbours share nothing.
int row_step(const DepthwiseWindow& w) {
  if (w.dilation_h != 1) return 1;
  for (int rows = 4; rows > 1; rows /= 2)
    if (w.stride_h < 64 && quads(w, rows) == quads(w, 1)) return rows;
  return 1;
}

OC_INLINE int span(const DepthwiseWindow& w) { return (w.kw - 1) * w.dilation_w + 1; }
OC_INLINE int vectors(int channels) { return ceil_div(channels, 16); }

// Columns of the output for which the input is interleaved at a time.
OC_INLINE int block(const DepthwiseWindow& w) {
  const int most_columns = kBudget / (kChunk * 4 * quads(w, row_step(w)));
  const int fitting = (most_columns - span(w)) / w.stride_w / kPixels * kPixels;
  return most(fitting, 2 * kPixels);
}

OC_INLINE int block_columns(const DepthwiseWindow& w) { return (block(w) - 1) * w.stride_w + span(w); }

size_t scratch(const DepthwiseWindow& w) {
  return kChunk + static_cast<size_t>(block_columns(w)) * quads(w, row_step(w)) * kChunk * 4;
}

// Of the channels from `first` on, a multiple of 64, as everywhere below.
size_t packed_size(const DepthwiseFilter& f, int first) {
  const int rows = row_step(f.window);
  return static_cast<size_t>(vectors(f.channels - first)) * f.window.kw * quads(f.window, rows) * rows * 64;
}

void pack(const DepthwiseFilter& f, int first, const int8_t* w, int8_t* packed) {
  const DepthwiseWindow& window = f.window;
  const int rows = row_step(window), all = quads(window, rows);
  for (int v = first / 16; v < vectors(f.channels); v++)
    for (int kx = 0; kx < window.kw; kx++)
      for (int q = 0; q < all; q++)
        for (int r = 0; r < rows; r++)
          for (int c = v * 16; c < v * 16 + 16; c++)
            for (int j = 0; j < 4; j++) {
              const int ky = 4 * q + j - r * window.stride_h;
              const bool inside = c < f.channels && ky >= 0 && ky < window.kh;
              *packed++ = inside ? w[(static_cast<size_t>(c) * window.kh + ky) * window.kw + kx] : 0;
            }
}

// Rows of the input that make up one quad: where column 0 of a chunk of channels is, and how far apart columns are.
struct Quad {
  const uint8_t* row[4];
  ptrdiff_t step[4];
};

// The rows from `top` on, `apart` rows apart. Rows outside of the image, and those beyond the window (whose weights are
// zero), are `outside`: a chunk of zero points.
OC_INLINE Quad quad_at(const DepthwiseImage& image, int channels, int c, int top, int apart, int wanted,
                       const uint8_t* outside) {
  Quad quad;
  for (int j = 0; j < 4; j++) {
    const int y = top + j * apart;
    const bool inside = j < wanted && y >= 0 && y < image.height;
    quad.row[j] = inside ? image.x + static_cast<ptrdiff_t>(y) * image.width * channels + c : outside;
    quad.step[j] = inside ? channels : 0;
  }
  return quad;
}

// Interleaves columns [begin, begin + count) of one quad, of the first n channels of a chunk. Vector v of column i goes
// to out + v * stride + i * apart.
struct Interleave {
  Quad quad;
  int n, width, channels;
  uint8_t x_zero;
  uint8_t* out;
  ptrdiff_t stride, apart;

  // Columns of zero points.
  void outside(int count, uint8_t* to) const {
    const vi zeros = _mm512_set1_epi8(static_cast<char>(x_zero));
    for (int i = 0; i < count; i++, to += apart)
      for (int v = 0; v < vectors(n); v++) store(to + v * stride, zeros);
  }

  // f(pointers to the four rows, out) for every `columns`-th column while that many are left; gives how many are not.
  template <class F>
  OC_INLINE int walk(int begin, int count, int columns, uint8_t* to, const F& f) const {
    const uint8_t *a = quad.row[0] + begin * quad.step[0], *b = quad.row[1] + begin * quad.step[1],
                  *c = quad.row[2] + begin * quad.step[2], *d = quad.row[3] + begin * quad.step[3];
    const ptrdiff_t next = columns * apart;  // copies, for stores of vectors might alias the members
    const ptrdiff_t next_a = columns * quad.step[0], next_b = columns * quad.step[1], next_c = columns * quad.step[2],
                    next_d = columns * quad.step[3];
    for (; count >= columns; count -= columns, to += next) {
      asm volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));  // or GCC keeps the four pointers in one vector
      f(a, b, c, d, to);
      a += next_a, b += next_b, c += next_c, d += next_d;
    }
    return count;
  }

  void operator()(int begin, int count) const {
    const int before = begin < 0 ? least(-begin, count) : 0;
    outside(before, out);
    begin += before, count -= before;
    uint8_t* const to = out + before * apart;
    const int inside = most(least(count, width - begin), 0);
    columns(begin, inside, to);
    outside(count - inside, to + inside * apart);
  }

  OC_INLINE void columns(int begin, int count, uint8_t* to) const {
    const Interleaver interleaved;
    const ptrdiff_t next = stride;
    if (n == kChunk) {
      walk(begin, count, 1, to, [&](auto a, auto b, auto c, auto d, uint8_t* y) OC_LAMBDA {
        const Interleaved low = interleaved(a, b, c, d), high = interleaved(a + 32, b + 32, c + 32, d + 32);
        store(y, low.low), store(y + next, low.high), store(y + 2 * next, high.low), store(y + 3 * next, high.high);
      });
      return;
    }
    if (n == 32) {
      walk(begin, count, 1, to, [&](auto a, auto b, auto c, auto d, uint8_t* y) OC_LAMBDA {
        const Interleaved x = interleaved(a, b, c, d);
        store(y, x.low), store(y + next, x.high);
      });
      return;
    }
    if (n == 16 && channels == 16) {  // neighbouring columns are neighbours in memory
      const int left = walk(begin, count, 2, to, [&](auto a, auto b, auto c, auto d, uint8_t* y) OC_LAMBDA {
        const Interleaved x = interleaved(a, b, c, d);
        store(y, x.low), store(y + apart, x.high);
      });
      begin += count - left, to += (count - left) * apart, count = left;
    }
    const __mmask32 first = n >= 32 ? ~0u : (1u << n) - 1, second = n > 32 ? (1u << (n - 32)) - 1 : 0;
    const int used = vectors(n);
    walk(begin, count, 1, to, [&](auto a, auto b, auto c, auto d, uint8_t* y) OC_LAMBDA {
      const Interleaved low = interleaved(a, b, c, d, first);
      store(y, low.low);
      if (used == 1) return;
      store(y + next, low.high);
      if (used == 2) return;
      const Interleaved high = interleaved(a + 32, b + 32, c + 32, d + 32, second);
      store(y + 2 * next, high.low);
      if (used == 4) store(y + 3 * next, high.high);
    });
  }
};

// One vector of channels of `rows` rows and some columns of the output.
struct Strip {
  const uint8_t* x;  // interleaved
  const int8_t* w;
  vi initial;
  vf scale, offset;
  int channels, wanted_channels, wanted_rows, wanted_columns;
  int kw, quads, stride_w, dilation_w;
  ptrdiff_t index, row_stride;  // of the first element of the output
};

// The sums of R rows, of the kPacked that weights are packed for, and kPixels columns: [row][column]. kW, kQuads and
// kStride are 0 where they are only known at run time; `apart` and `tap` are bytes between columns of the output and
// between taps.
template <int R, int kW, int kQuads, int kStride, int kPacked>
OC_INLINE void sum_up(const Strip& s, const uint8_t* x, const int8_t* w, ptrdiff_t apart, ptrdiff_t tap, vi initial,
                      vi* sums) {
  unroll<R * kPixels>([&](auto j) OC_LAMBDA { sums[j] = initial; });
  auto step = [&](const vi* bytes, const int8_t* weights) OC_LAMBDA {
    unroll<R>([&](auto r) OC_LAMBDA {
      const vi b = load(weights + r * 64);
      unroll<kPixels>([&](auto p) OC_LAMBDA { sums[r * kPixels + p] = dot(sums[r * kPixels + p], bytes[p], b); });
    });
  };
  auto read = [&](const uint8_t* column, vi* bytes) OC_LAMBDA {
    unroll<kPixels>([&](auto p) OC_LAMBDA { bytes[p] = load_once(column + p * apart); });
  };
  if constexpr (kStride == 1 && kQuads == 1) {  // few enough columns to keep them all in registers
    vi bytes[kPixels + kW - 1];
    unroll<kPixels + kW - 1>([&](auto i) OC_LAMBDA { bytes[i] = load_once(x + i * 64); });
    unroll<kW>([&](auto kx) OC_LAMBDA { step(bytes + kx, w + kx * kPacked * 64); });
  } else if constexpr (kW != 0) {
    unroll<kW * kQuads>([&](auto t) OC_LAMBDA {
      vi bytes[kPixels];
      read(x + t * 64, bytes);
      step(bytes, w + t * kPacked * 64);
    });
  } else {
    for (int kx = 0; kx < s.kw; kx++, x += tap)
      for (int q = 0; q < s.quads; q++, w += kPacked * 64) {
        vi bytes[kPixels];
        read(x + q * 64, bytes);
        step(bytes, w);
      }
  }
}

template <int R, int kW, int kQuads, int kStride, class Sink, int kPacked = R>
__attribute__((noinline)) void strip(const Strip& s, const Sink& the_sink) {
  const Sink sink = the_sink;  // stores of bytes could alias it elsewhere
  const ptrdiff_t quads = kQuads ? kQuads : s.quads;
  const ptrdiff_t apart = (kStride ? kStride : s.stride_w) * quads * 64, tap = s.dilation_w * quads * 64;
  const vi initial = s.initial;
  const vf scale = s.scale, offset = s.offset;
  const uint8_t* x = s.x;
  const int8_t* const w = s.w;
  ptrdiff_t index = s.index;
  const ptrdiff_t channels = s.channels, row_stride = s.row_stride;
  int i = 0;
  auto sum = [&](vi* sums) OC_LAMBDA {
    const int8_t* weights = w;
    if (kW * kQuads * R > 8) asm volatile("" : "+r"(weights));  // keeps GCC from moving all weights to the stack
    sum_up<R, kW, kQuads, kStride, kPacked>(s, x, weights, apart, tap, initial, sums);
  };
  auto advance = [&]() OC_LAMBDA { i += kPixels, x += kPixels * apart, index += kPixels * channels; };
  if (s.wanted_rows >= R && s.wanted_channels >= 16)
    for (const int end = s.wanted_columns - kPixels; i <= end; advance()) {
      vi sums[R * kPixels];
      sum(sums);
      unroll<R>([&](auto r) OC_LAMBDA {
        vf values[kPixels];
        unroll<kPixels>([&](auto p) OC_LAMBDA { values[p] = fma(to_float(sums[r * kPixels + p]), scale, offset); });
        sink.template four<true>(index + r * row_stride, channels, values, 16, kPixels);
      });
    }
  for (; i < s.wanted_columns; advance()) {
    vi sums[R * kPixels];
    sum(sums);
    unroll<R>([&](auto r) OC_LAMBDA {
      if (r >= s.wanted_rows) return;
      vf values[kPixels];
      unroll<kPixels>([&](auto p) OC_LAMBDA { values[p] = fma(to_float(sums[r * kPixels + p]), scale, offset); });
      sink.template four<false>(index + r * row_stride, channels, values, least(s.wanted_channels, 16),
                                least(s.wanted_columns - i, kPixels));
    });
  }
}

template <class Sink>
using StripKernel = void (*)(const Strip&, const Sink&);

// For `wanted` rows of the output, the weights being packed for `rows`.
template <class Sink>
StripKernel<Sink> choose(const DepthwiseWindow& w, int rows, int wanted) {
  const int all = quads(w, rows);
  if (w.dilation_w == 1 && w.kw == 3 && all == 1) {
    if (rows == 2 && w.stride_w == 1) return strip<2, 3, 1, 1, Sink>;
    if (rows == 1) return w.stride_w == 1 ? strip<1, 3, 1, 1, Sink> : strip<1, 3, 1, 0, Sink>;
  }
  if (w.dilation_w == 1 && w.kw == 5 && all == 2) {
    if (rows == 4) return wanted > 2 ? strip<4, 5, 2, 0, Sink> : strip<2, 5, 2, 0, Sink, 4>;
    if (rows == 2) return strip<2, 5, 2, 0, Sink>;
  }
  if (w.dilation_w == 1 && w.kw == 7 && all == 2 && rows == 2) return strip<2, 7, 2, 0, Sink>;
  return rows == 4 ? strip<4, 0, 0, 0, Sink> : rows == 2 ? strip<2, 0, 0, 0, Sink> : strip<1, 0, 0, 0, Sink>;
}

template <class Sink>
void run(const DepthwiseFilter& f, int first, const int8_t* packed, const DepthwiseImage& image, const Sink& sink) {
  const DepthwiseWindow& window = f.window;
  const int rows = row_step(window), all = quads(window, rows), needed = window.kh + (rows - 1) * window.stride_h;
  const int blocks = ceil_div(image.out_width, block(window));
  const int width = blocks ? ceil_div(ceil_div(image.out_width, blocks), kPixels) * kPixels : 0;
  const ptrdiff_t apart = static_cast<ptrdiff_t>(all) * 64, stride = block_columns(window) * apart;
  const size_t weights = static_cast<size_t>(window.kw) * all * rows * 64;
  uint8_t* const outside = image.scratch;
  uint8_t* const interleaved = image.scratch + kChunk;
  std::memset(outside, f.x_zero, kChunk);
  for (int row = image.row_begin; row < image.row_end; row += rows) {
    const StripKernel<Sink> kernel = choose<Sink>(window, rows, image.row_end - row);
    const int top = row * window.stride_h - window.pad_top;
    for (int c = first; c < f.channels; c += kChunk) {
      const int n = least(f.channels - c, kChunk);
      for (int column = 0; column < image.out_width; column += width) {
        const int count = least(width, image.out_width - column);
        const int begin = column * window.stride_w - window.pad_left;
        const int input_columns = (count - 1) * window.stride_w + span(window);
        const ptrdiff_t row_stride = static_cast<ptrdiff_t>(image.out_width) * f.channels;
        const ptrdiff_t index = row * row_stride + static_cast<ptrdiff_t>(column) * f.channels + c;
        for (int q = 0; q < all; q++) {
          const Quad quad = quad_at(image, f.channels, c, top + 4 * q * window.dilation_h, window.dilation_h,
                                    needed - 4 * q, outside);
          const Interleave columns{quad, n, image.width, f.channels, f.x_zero, interleaved + q * 64, stride, apart};
          columns(begin, input_columns);
        }
        for (int v = 0; v < vectors(n); v++) {
          const int at = c + v * 16;
          kernel({interleaved + v * stride, packed + weights * ((at - first) / 16), load(f.initial + at), loadf(f.scale + at),
                  loadf(f.offset + at), f.channels, n - v * 16, image.row_end - row, count, window.kw, all,
                  window.stride_w, window.dilation_w, index + v * 16, row_stride},
                 sink);
        }
      }
    }
  }
}

}  // namespace columns
}  // namespace
}  // namespace oc::OC_ISA
