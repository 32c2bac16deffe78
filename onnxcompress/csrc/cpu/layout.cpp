#include "cpu/layout.hpp"

#include "cpu/layout_transpose.hpp"

namespace oc::OC_ISA {
namespace {

// Bytes to floats by scale and zero point.
struct Scaled {
  vf scale;
  vi zero_point;
  OC_INLINE void operator()(const uint8_t* x, float* y, int count) const {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) storef(y + i, mul(to_float(sub(load_u8(x + i), zero_point)), scale));
    if (i < count) storef(y + i, mul(to_float(sub(load_u8(x + i, count - i), zero_point)), scale), count - i);
  }
};

// Bytes to floats by a table.
struct LookedUp {
#if defined(__AVX512VBMI__)
  // One table for each byte of a float: 64 look-ups at a time, then the four bytes are woven together.
  alignas(64) uint8_t bytes[4][256];
  explicit LookedUp(const float* values) {
    for (int i = 0; i < 256; i += kLanes)
      unroll<4>([&](auto b) OC_LAMBDA {
        const __m128i part = _mm512_cvtepi32_epi8(_mm512_srli_epi32(load(values + i), 8 * b));
        _mm_store_si128(reinterpret_cast<__m128i*>(bytes[b] + i), part);
      });
  }
  OC_INLINE void operator()(const uint8_t* x, float* y, int count) const {
    const ByteTable table[4] = {ByteTable(bytes[0]), ByteTable(bytes[1]), ByteTable(bytes[2]), ByteTable(bytes[3])};
    const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int i = 0; i < count; i += kBytes) {
      const int n = least(count - i, kBytes);
      const vb at = _mm512_permutexvar_epi32(order, loadb(x + i, n));
      const vb b0 = table[0](at), b1 = table[1](at), b2 = table[2](at), b3 = table[3](at);
      const vi low[2] = {_mm512_unpacklo_epi8(b0, b1), _mm512_unpackhi_epi8(b0, b1)};
      const vi high[2] = {_mm512_unpacklo_epi8(b2, b3), _mm512_unpackhi_epi8(b2, b3)};
      unroll<4>([&](auto v) OC_LAMBDA {
        const vi floats = v % 2 ? _mm512_unpackhi_epi16(low[v / 2], high[v / 2])
                                : _mm512_unpacklo_epi16(low[v / 2], high[v / 2]);
        storef(y + i + v * kLanes, _mm512_castsi512_ps(floats), most(0, n - v * kLanes));
      });
    }
  }
#else
  const float* values;
  explicit LookedUp(const float* v) : values(v) {}
  OC_INLINE void operator()(const uint8_t* x, float* y, int count) const {
    for (int i = 0; i < count; i++) y[i] = values[x[i]];
  }
#endif
};

// Calls fn(c, bytes, count) for each channel's row of pixels.
template <class F>
OC_INLINE void each_channel(const uint8_t* x, int pixels, int channels, F&& fn) {
  if (channels == 1) return fn(0, x);
  alignas(64) uint8_t rows[kTile * kLayoutPixels];
  for (int c = 0; c < channels; c += kTile) {
    const int count = least(kTile, channels - c);
    if (channels == 2) split<2>(x, pixels, rows, kLayoutPixels);
    else if (channels == 3) split<3>(x, pixels, rows, kLayoutPixels);
    else if (channels == 4) split<4>(x, pixels, rows, kLayoutPixels);
    else transpose(x + c, channels, pixels, count, rows, kLayoutPixels);
    for (int i = 0; i < count; i++) fn(c + i, rows + i * kLayoutPixels);
  }
}

void dequantize(const uint8_t* x, int pixels, int channels, float scale, int zero_point, float* y, ptrdiff_t plane) {
  const Scaled to_floats{setf(scale), set(zero_point)};
  each_channel(x, pixels, channels,
               [&](int c, const uint8_t* row) OC_LAMBDA { to_floats(row, y + c * plane, pixels); });
}

void look_up(const uint8_t* x, int pixels, int channels, const float* values, float* y, ptrdiff_t plane) {
  const LookedUp to_floats(values);
  each_channel(x, pixels, channels,
               [&](int c, const uint8_t* row) OC_LAMBDA { to_floats(row, y + c * plane, pixels); });
}

OC_INLINE void to_bytes(const float* x, int count, vf inverse, vi zero_point, uint8_t* y) {
  int i = 0;
  for (; i + kBytes <= count; i += kBytes) {
    vi lanes[4];
    unroll<4>([&](auto v) OC_LAMBDA { lanes[v] = nearest(mul(loadf(x + i + v * kLanes), inverse)); });
    storeb(y + i, pack(lanes, zero_point));
  }
  if (i == count) return;
  vi lanes[4];
  unroll<4>([&](auto v) OC_LAMBDA {
    lanes[v] = nearest(mul(loadf(x + i + v * kLanes, most(0, count - i - v * kLanes)), inverse));
  });
  storeb(y + i, pack(lanes, zero_point), count - i);
}

void quantize(const float* x, ptrdiff_t plane, int pixels, int channels, float scale, int zero_point, uint8_t* y) {
  const vf inverse = setf(1.f / scale);
  const vi zero = set(zero_point);
  if (channels == 1) return to_bytes(x, pixels, inverse, zero, y);
  alignas(64) uint8_t rows[kTile * kLayoutPixels];
  for (int c = 0; c < channels; c += kTile) {
    const int count = least(kTile, channels - c);
    for (int i = 0; i < count; i++) to_bytes(x + (c + i) * plane, pixels, inverse, zero, rows + i * kLayoutPixels);
    if (channels == 2) join<2>(rows, kLayoutPixels, pixels, y);
    else if (channels == 3) join<3>(rows, kLayoutPixels, pixels, y);
    else if (channels == 4) join<4>(rows, kLayoutPixels, pixels, y);
    else transpose(rows, kLayoutPixels, count, pixels, y + c, channels);
  }
}

}  // namespace

extern const LayoutKernels layout = {dequantize, look_up, quantize};

}  // namespace oc::OC_ISA
