// What becomes of the sums of a depthwise convolution.
#pragma once

#include "cpu/depthwise.hpp"
#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

// table[saturate(round(value + residual * residual_scale))] as bytes.
template <bool kResidual>
struct DepthwiseBytes {
  using Element = uint8_t;
  uint8_t* y;
  const uint8_t* table;
  const uint8_t* residual;
  float residual_scale;

  // The first `count` lanes of `value`, to the element at `index`.
  OC_INLINE void one(ptrdiff_t index, vf value, int count) const {
    // Beyond int32 the conversion would give its least number.
    const vi x = to_int(min(setf(65536.f), with_residual(index, value, count)));
    if (count == kLanes) store_u8(y + index, x);
    else store_u8(y + index, x, count);
    if (table)
      for (int i = 0; i < count; i++) y[index + i] = table[y[index + i]];
  }

  OC_INLINE vf with_residual(ptrdiff_t index, vf value, int count) const {
    if (kResidual) value = fma(to_float(load_u8(residual + index, count)), setf(residual_scale), value);
    return value;
  }

#if defined(OC_AVX512)
  // Four pixels, `stride` elements apart, of which the first `pixels` are wanted (kWhole: all, and all 16 channels);
  // values are within int32.
  template <bool kWhole>
  OC_INLINE void four(ptrdiff_t index, ptrdiff_t stride, const vf* value, int count, int pixels) const {
    vi x[4];
    unroll<4>([&](auto p) OC_LAMBDA {
      const bool wanted = kWhole || p < pixels;
      x[p] = to_int(wanted ? with_residual(index + p * stride, value[p], kWhole ? 16 : count) : value[p]);
    });
    vi bytes = pack4(x);
    if (table) bytes = Table(table)(bytes);
    unroll<4>([&](auto p) OC_LAMBDA {
      const __m128i part = _mm512_extracti32x4_epi32(bytes, p);
      uint8_t* to = y + index + p * stride;
      if (kWhole) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), part);
      else if (p < pixels) _mm_mask_storeu_epi8(to, first(count), part);
    });
  }

  // 64 channels of one pixel, those of the mask (kWhole: all): lane l of value v is of channels 16 l + 4 v on, and packs
  // to where it belongs. Values are within int32.
  template <bool kWhole>
  OC_INLINE void chunk(ptrdiff_t index, const vf* value, __mmask64 mask) const {
    vi x[4], more[4];
    if (kResidual) by_lanes(kWhole ? load(residual + index) : _mm512_maskz_loadu_epi8(mask, residual + index), more);
    unroll<4>([&](auto v) OC_LAMBDA {
      x[v] = to_int(kResidual ? fma(to_float(more[v]), setf(residual_scale), value[v]) : value[v]);
    });
    vi bytes = _mm512_packus_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3]));
    if (table) bytes = Table(table)(bytes);
    if (kWhole) store(y + index, bytes);
    else _mm512_mask_storeu_epi8(y + index, mask, bytes);
  }

 private:
  // 64 bytes as four vectors of integers in that order.
  static OC_INLINE void by_lanes(vi bytes, vi* out) {
    const vi low = _mm512_unpacklo_epi8(bytes, zero()), high = _mm512_unpackhi_epi8(bytes, zero());
    out[0] = _mm512_unpacklo_epi16(low, zero()), out[1] = _mm512_unpackhi_epi16(low, zero());
    out[2] = _mm512_unpacklo_epi16(high, zero()), out[3] = _mm512_unpackhi_epi16(high, zero());
  }
#endif
};

struct DepthwiseFloats {
  using Element = float;
  float* y;

  OC_INLINE void one(ptrdiff_t index, vf value, int count) const {
    if (count == kLanes) storef(y + index, value);
    else storef(y + index, value, count);
  }

#if defined(OC_AVX512)
  template <bool kWhole>
  OC_INLINE void four(ptrdiff_t index, ptrdiff_t stride, const vf* value, int count, int pixels) const {
    unroll<4>([&](auto p) OC_LAMBDA {
      if (kWhole) storef(y + index + p * stride, value[p]);
      else if (p < pixels) storef(y + index + p * stride, value[p], count);
    });
  }

  template <bool kWhole>
  OC_INLINE void chunk(ptrdiff_t index, const vf* value, __mmask64 mask) const {
    const vf a = _mm512_shuffle_f32x4(value[0], value[1], 0x44), b = _mm512_shuffle_f32x4(value[2], value[3], 0x44);
    const vf c = _mm512_shuffle_f32x4(value[0], value[1], 0xee), d = _mm512_shuffle_f32x4(value[2], value[3], 0xee);
    const vf natural[4] = {_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd),
                           _mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd)};
    unroll<4>([&](auto v) OC_LAMBDA {
      if (kWhole) storef(y + index + v * 16, natural[v]);
      else _mm512_mask_storeu_ps(y + index + v * 16, static_cast<__mmask16>(mask >> (v * 16)), natural[v]);
    });
  }
#endif
};

}  // namespace
}  // namespace oc::OC_ISA
