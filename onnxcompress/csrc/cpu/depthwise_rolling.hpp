// Depthwise convolutions with 3 x 3 windows, 64 channels at a time, column by column.
//
// A column of the input is read once for a row of the output: its rows' bytes are interleaved in registers, and dot
// products of three vertically adjacent taps add it to all results that are on their way. Unpacking leaves channels in
// an order (lane l of vector v holds channels 16 l + 4 v to 16 l + 4 v + 3) in which packing four vectors of results
// gives 64 bytes in their natural order: one store.
#pragma once

#include "cpu/depthwise.hpp"
#include "cpu/depthwise_interleave.hpp"

namespace oc::OC_ISA {
namespace {
namespace rolling {

constexpr int kSize = 3, kChunk = 64, kVectors = 4;
constexpr int kChunkWeights = kSize * kVectors * 64;
constexpr int kLeast = 49;  // channels of a last chunk that are worth the whole chunk's work

// Channels [0, these) are made here.
int channels(const DepthwiseFilter& f) {
  const DepthwiseWindow& w = f.window;
  if (w.kh != kSize || w.kw != kSize || w.dilation_w != 1 || w.stride_w > 2) return 0;
  return f.channels % kChunk >= kLeast ? f.channels : f.channels / kChunk * kChunk;
}

size_t packed_size(const DepthwiseFilter& f) {
  return static_cast<size_t>(ceil_div(channels(f), kChunk)) * kChunkWeights;
}

// The channel, of its chunk, in lane i of vector v.
OC_INLINE int channel_of(int v, int i) { return i / 4 * 16 + v * 4 + i % 4; }

// [chunk][kx][vector][lane][ky], and a zero behind the three taps.
void pack(const DepthwiseFilter& f, const int8_t* w, int8_t* packed) {
  for (int chunk = 0; chunk < channels(f); chunk += kChunk)
    for (int kx = 0; kx < kSize; kx++)
      for (int v = 0; v < kVectors; v++)
        for (int i = 0; i < 16; i++)
          for (int ky = 0; ky < 4; ky++) {
            const int c = chunk + channel_of(v, i);
            const bool inside = c < f.channels && ky < kSize;
            *packed++ = inside ? w[(static_cast<size_t>(c) * kSize + ky) * kSize + kx] : 0;
          }
}

// What all pixels of a chunk share. Numbers by channel are in the order of the vectors.
struct Chunk {
  vi initial[kVectors];
  vf scale[kVectors], offset[kVectors];
  const int8_t* w;
  __mmask64 mask;
};

OC_INLINE Chunk chunk_at(const DepthwiseFilter& f, int c) {
  const int n = least(f.channels - c, kChunk);
  auto ordered = [&](const void* numbers, int v) {
    int32_t lanes[16] = {};
    for (int i = 0; i < 16; i++)
      if (channel_of(v, i) < n) std::memcpy(lanes + i, static_cast<const int32_t*>(numbers) + c + channel_of(v, i), 4);
    return load(lanes);
  };
  Chunk chunk;
  for (int v = 0; v < kVectors; v++) {
    chunk.initial[v] = ordered(f.initial, v);
    chunk.scale[v] = _mm512_castsi512_ps(ordered(f.scale, v));
    chunk.offset[v] = _mm512_castsi512_ps(ordered(f.offset, v));
  }
  chunk.w = f.packed + c / kChunk * kChunkWeights;
  chunk.mask = n == kChunk ? ~0ull : (1ull << n) - 1;
  return chunk;
}

// A chunk of a row of the output.
struct Row {
  const uint8_t* line[kSize];  // of the input, at column 0
  ptrdiff_t step[kSize];       // from column to column; 0 for lines that are outside of the image
  int width, pad, out_width;
  ptrdiff_t channels, index;  // of the output: in a pixel, and the first element
};

// acc + products of unsigned bytes by the signed bytes at p.
OC_INLINE vi dot_at(vi acc, vi u8, const int8_t* p) {
  OC_READS(p, sizeof(vi));
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "m"(*reinterpret_cast<const __m512i_u*>(p)));
  return acc;
}

// The four vectors of three rows. What lies behind the third one does not count.
OC_INLINE void interleave(vi a, vi b, vi c, vi* out) {
  const vi ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
  const vi c_low = _mm512_unpacklo_epi8(c, c), c_high = _mm512_unpackhi_epi8(c, c);
  out[0] = _mm512_unpacklo_epi16(ab_low, c_low), out[1] = _mm512_unpackhi_epi16(ab_low, c_low);
  out[2] = _mm512_unpacklo_epi16(ab_high, c_high), out[3] = _mm512_unpackhi_epi16(ab_high, c_high);
}

template <int kStride, bool kWhole, class Sink>
__attribute__((noinline)) void make_row(const Row& the_row, const Chunk& chunk, vi outside, const Sink& the_sink) {
  constexpr int kSlots = ceil_div(kSize, kStride);  // results that are on their way at a time
  constexpr int kPeriod = kSlots * kStride;         // columns, after which slots take the same parts again
  const Row row = the_row;  // copies, for stores of bytes might alias them
  const Sink sink = the_sink;
  const __mmask64 mask = chunk.mask;
  const int8_t* w = chunk.w;
  const uint8_t* line[kSize];
  unroll<kSize>([&](auto j) OC_LAMBDA { line[j] = row.line[j] - row.pad * row.step[j]; });
  ptrdiff_t index = row.index;
  vi sums[kSlots * kVectors];
  unroll<kSlots * kVectors>([&](auto i) OC_LAMBDA { sums[i] = zero(); });
  // The columns from `first` on, in which results from `made` on are completed. kInside: all of these exist.
  auto period = [&](auto kInside, int first, int made) OC_LAMBDA {
    unroll<kPeriod>([&](auto t) OC_LAMBDA {
      asm volatile("" : "+r"(w));  // keeps GCC from moving the weights' addresses to the stack
      vi bytes[kVectors];
      const int x = first + t - row.pad;
      if (kInside || (x >= 0 && x < row.width)) {
        vi read[kSize];
        unroll<kSize>([&](auto j) OC_LAMBDA {
          read[j] = kWhole ? load_once(line[j]) : _mm512_maskz_loadu_epi8(mask, line[j]);
        });
        interleave(read[0], read[1], read[2], bytes);
      } else {
        unroll<kVectors>([&](auto v) OC_LAMBDA { bytes[v] = outside; });
      }
      unroll<kSize>([&](auto j) OC_LAMBDA {
        line[j] += row.step[j];
        asm volatile("" : "+r"(line[j]));  // keeps it from moving pointers to vectors
      });
      unroll<kSize>([&](auto kx) OC_LAMBDA {
        constexpr int from = kPeriod + t - kx;  // where the result that this tap is of begins, a period later
        if constexpr (from % kStride == 0)
          unroll<kVectors>([&](auto v) OC_LAMBDA {
            vi& sum = sums[from / kStride % kSlots * kVectors + v];
            sum = dot_at(kx == 0 ? chunk.initial[v] : sum, bytes[v], w + (kx * kVectors + v) * 64);
          });
      });
      constexpr int from = kPeriod + t - (kSize - 1);
      if constexpr (from % kStride == 0) {
        if (kInside || (made >= 0 && made < row.out_width)) {
          vf values[kVectors];
          unroll<kVectors>([&](auto v) OC_LAMBDA {
            const vf sum = to_float(sums[from / kStride % kSlots * kVectors + v]);
            values[v] = fma(sum, chunk.scale[v], chunk.offset[v]);
          });
          sink.template chunk<kWhole>(index, values, mask);
          index += row.channels;
        }
        made++;
      }
    });
  };
  const int columns = (row.out_width - 1) * kStride + kSize;
  int made = -(kSize - 1) / kStride;  // the first results would begin before the row
  for (int first = 0; first < columns; first += kPeriod, made += kSlots) {
    const bool inside = made >= 0 && made + kSlots <= row.out_width && first >= row.pad &&
                        first + kPeriod <= row.pad + row.width;
    if (inside) period(Index<1>{}, first, made);
    else period(Index<0>{}, first, made);
  }
}

template <int kStride, class Sink>
void run_with(const DepthwiseFilter& f, const DepthwiseImage& image, const Sink& sink) {
  const DepthwiseWindow& window = f.window;
  const vi outside = _mm512_set1_epi8(static_cast<char>(f.x_zero));
  uint8_t zeros[kChunk];
  store(zeros, outside);
  const ptrdiff_t pitch = static_cast<ptrdiff_t>(image.width) * f.channels;
  for (int c = 0; c < channels(f); c += kChunk) {
    const Chunk chunk = chunk_at(f, c);
    for (int y = image.row_begin; y < image.row_end; y++) {
      Row row{{}, {}, image.width, window.pad_left, image.out_width, f.channels, 0};
      row.index = (static_cast<ptrdiff_t>(y) * image.out_width) * f.channels + c;
      for (int j = 0; j < kSize; j++) {
        const int at = y * window.stride_h - window.pad_top + j * window.dilation_h;
        const bool inside = at >= 0 && at < image.height;
        row.line[j] = inside ? image.x + at * pitch + c : zeros;
        row.step[j] = inside ? f.channels : 0;
      }
      if (chunk.mask == ~0ull) make_row<kStride, true>(row, chunk, outside, sink);
      else make_row<kStride, false>(row, chunk, outside, sink);
    }
  }
}

template <class Sink>
void run(const DepthwiseFilter& f, const DepthwiseImage& image, const Sink& sink) {
  f.window.stride_w == 1 ? run_with<1>(f, image, sink) : run_with<2>(f, image, sink);
}

}  // namespace rolling
}  // namespace
}  // namespace oc::OC_ISA
