#include "cpu/depthwise.hpp"

#include "cpu/depthwise_sinks.hpp"
#if defined(OC_AVX512)
#include "cpu/depthwise_columns.hpp"
#include "cpu/depthwise_rolling.hpp"
#endif

namespace oc::OC_ISA {
namespace {

OC_INLINE int padded_channels(const DepthwiseFilter& f) { return (f.channels + 15) / 16 * 16; }

// Any window, tap by tap; weights are [kh][kw][padded channels]. The scratch memory is a pixel of zero points.
namespace taps {

size_t packed_size(const DepthwiseFilter& f) {
  return static_cast<size_t>(f.window.kh) * f.window.kw * padded_channels(f);
}

size_t scratch(const DepthwiseFilter& f) { return padded_channels(f); }

void pack(const DepthwiseFilter& f, const int8_t* w, int8_t* packed) {
  const int count = f.window.kh * f.window.kw;
  for (int t = 0; t < count; t++)
    for (int c = 0; c < padded_channels(f); c++)
      *packed++ = c < f.channels ? w[static_cast<size_t>(c) * count + t] : 0;
}

constexpr int kVectors = 4;  // of channels at a time

// sum + x * w for kLanes bytes of each.
OC_INLINE vi multiply_add(vi sum, const uint8_t* x, const int8_t* w) {
#if defined(OC_AVX512) || defined(OC_AVX2)
  return add(sum, mul(load_u8(x), load_s8(w)));
#else
  typedef uint8_t u8 __attribute__((vector_size(kLanes)));
  typedef int8_t s8 __attribute__((vector_size(kLanes)));
  typedef int16_t s16 __attribute__((vector_size(2 * kLanes)));  // which has room for each product
  const s16 product = __builtin_convertvector(read<u8>(x), s16) * __builtin_convertvector(read<s8>(w), s16);
  return sum + __builtin_convertvector(product, vi);
#endif
}

// The results of the channels [c, c + count) of one pixel of the output; count is at most kVectors vectors, or exactly
// that where kWhole. `top` and `left` are where the window begins.
template <bool kWhole, class Sink>
OC_INLINE void channels(const DepthwiseFilter& f, const DepthwiseImage& image, int top, int left, int c, int count,
                        ptrdiff_t index, const Sink& sink) {
  const DepthwiseWindow& window = f.window;
  const int step = padded_channels(f);
  vi sums[kVectors];
  auto each = [&](auto&& fn) OC_LAMBDA {
    unroll<kVectors>([&](auto v) OC_LAMBDA {
      if (kWhole || v * kLanes < count) fn(v, kWhole ? kLanes : least(count - v * kLanes, kLanes));
    });
  };
  each([&](auto v, int) OC_LAMBDA { sums[v] = load(f.initial + c + v * kLanes); });
  const int8_t* w = f.packed + c;
  for (int ky = 0; ky < window.kh; ky++) {
    const int iy = top + ky * window.dilation_h;
    const bool inside = iy >= 0 && iy < image.height;
    const uint8_t* line = image.x + static_cast<ptrdiff_t>(inside ? iy : 0) * image.width * f.channels + c;
    for (int kx = 0; kx < window.kw; kx++, w += step) {
      const int ix = left + kx * window.dilation_w;
      const bool reads = inside && ix >= 0 && ix < image.width;
      const uint8_t* p = reads ? line + static_cast<ptrdiff_t>(ix) * f.channels : image.scratch;
      each([&](auto v, int n) OC_LAMBDA {
        const int at = v * kLanes;
        if (n == kLanes) sums[v] = multiply_add(sums[v], p + at, w + at);
        else sums[v] = add(sums[v], mul(load_u8(p + at, n), load_s8(w + at)));
      });
    }
  }
  each([&](auto v, int n) OC_LAMBDA {
    const int at = c + v * kLanes;
    sink.one(index + at, fma(to_float(sums[v]), loadf(f.scale + at), loadf(f.offset + at)), n);
  });
}

template <class Sink>
void run(const DepthwiseFilter& f, const DepthwiseImage& image, const Sink& sink) {
  constexpr int block = kVectors * kLanes;
  std::memset(image.scratch, f.x_zero, padded_channels(f));
  for (int row = image.row_begin; row < image.row_end; row++)
    for (int column = 0; column < image.out_width; column++) {
      const int top = row * f.window.stride_h - f.window.pad_top, left = column * f.window.stride_w - f.window.pad_left;
      const ptrdiff_t index = (static_cast<ptrdiff_t>(row) * image.out_width + column) * f.channels;
      int c = 0;
      for (; c + block <= f.channels; c += block) channels<true>(f, image, top, left, c, block, index, sink);
      if (c < f.channels) channels<false>(f, image, top, left, c, f.channels - c, index, sink);
    }
}

}  // namespace taps

#if defined(OC_AVX512)

// Results that may leave int32 take the careful way.
OC_INLINE bool by_columns(const DepthwiseFilter& f) { return f.bounded; }

// Channels that are not made column by column.
OC_INLINE bool has_rest(const DepthwiseFilter& f) { return rolling::channels(f) < f.channels; }

int row_step(const DepthwiseFilter& f) { return by_columns(f) && has_rest(f) ? columns::row_step(f.window) : 1; }
size_t packed_size(const DepthwiseFilter& f) {
  if (!by_columns(f)) return taps::packed_size(f);
  return rolling::packed_size(f) + (has_rest(f) ? columns::packed_size(f, rolling::channels(f)) : 0);
}
size_t scratch(const DepthwiseFilter& f) { return by_columns(f) ? columns::scratch(f.window) : taps::scratch(f); }
void pack(const DepthwiseFilter& f, const int8_t* w, int8_t* packed) {
  if (!by_columns(f)) return taps::pack(f, w, packed);
  rolling::pack(f, w, packed);
  if (has_rest(f)) columns::pack(f, rolling::channels(f), w, packed + rolling::packed_size(f));
}
template <class Sink>
void run(const DepthwiseFilter& f, const DepthwiseImage& image, const Sink& sink) {
  if (!by_columns(f)) return taps::run(f, image, sink);
  rolling::run(f, image, sink);
  if (has_rest(f)) columns::run(f, rolling::channels(f), f.packed + rolling::packed_size(f), image, sink);
}

#else

int row_step(const DepthwiseFilter&) { return 1; }
using taps::pack, taps::packed_size, taps::run, taps::scratch;

#endif

void to_bytes(const DepthwiseFilter& f, const DepthwiseImage& image, uint8_t* y, const uint8_t* residual,
              float residual_scale) {
  if (residual) run(f, image, DepthwiseBytes<true>{y, f.table, residual, residual_scale});
  else run(f, image, DepthwiseBytes<false>{y, f.table, nullptr, 0});
}

void to_floats(const DepthwiseFilter& f, const DepthwiseImage& image, float* y) {
  run(f, image, DepthwiseFloats{y});
}

}  // namespace

extern const DepthwiseKernels depthwise = {row_step, packed_size, scratch, pack, to_bytes, to_floats};

}  // namespace oc::OC_ISA
