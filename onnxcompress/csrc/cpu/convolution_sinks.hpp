// What becomes of the sums of a tile of output pixels.
#pragma once

#include "cpu/convolution.hpp"
#include "cpu/sinks.hpp"

namespace oc::OC_ISA {
namespace {

// kLanes bytes of the residual at p, or the first `count` of them.
OC_INLINE vf residual_at(const uint8_t* p, int count) {
  return to_float(count >= kLanes ? load_u8(p) : count > 0 ? load_u8(p, count) : zero());
}

struct PixelsToBytes {
  const Epilogue& e;
  uint8_t* y;

  // What networks are made of is done here, while the sums are in registers; `general` does what is rarer.
  template <int MR, int NV>
  OC_INLINE void tile(int row, int column, const vi* sums) const {
    const ptrdiff_t at = row * e.stride + column;
    const int count = e.channels - column;
#if defined(OC_AVX512)
    const bool all = count >= NV * kLanes;
    if (!e.after && (all || !e.residual)) {
      vf value[MR * NV];
      unroll<NV>([&](auto v) OC_LAMBDA {
        const vf scale = loadf(e.scale + column + v * kLanes), offset = loadf(e.offset + column + v * kLanes);
        unroll<MR>([&](auto m) OC_LAMBDA { value[m * NV + v] = fma(to_float(sums[m * NV + v]), scale, offset); });
      });
      if (e.residual) {
        const vf scale = setf(e.residual_scale);
        unroll<MR * NV>([&](auto j) OC_LAMBDA {
          const uint8_t* r = e.residual + at + (j / NV) * e.stride + (j % NV) * kLanes;
          value[j] = fma(to_float(load_u8(r)), scale, value[j]);
        });
      }
      vi x[MR * NV];
      unroll<MR * NV>([&](auto j) OC_LAMBDA { x[j] = whole(value[j]); });
      return all ? store_tile<MR, NV>(y + at, x) : store_some<MR, NV>(y + at, x, count);
    }
#endif
    vi copy[MR * NV];
    unroll<MR * NV>([&](auto j) OC_LAMBDA { copy[j] = sums[j]; });
    general<NV>(at, column, count, copy, MR);
  }

 private:
  // Beyond int32 the conversion would give its least number.
  static OC_INLINE vi whole(vf x) { return to_int(min(setf(65536.f), x)); }

  // `rows` rows of NV vectors of sums, any number of channels, any epilogue.
  template <int NV>
  __attribute__((noinline)) void general(ptrdiff_t at, int column, int count, const vi* sums, int rows) const {
    for (int m = 0; m < rows; m++, at += e.stride, sums += NV) {
      vi x[NV];
      unroll<NV>([&](auto v) OC_LAMBDA {
        const int c = column + v * kLanes;
        vf value = fma(to_float(sums[v]), loadf(e.scale + c), loadf(e.offset + c));
        if (e.residual && !e.after)
          value = fma(residual_at(e.residual + at + v * kLanes, count - v * kLanes), setf(e.residual_scale), value);
        x[v] = whole(value);
      });
      store_row<NV>(at, x, least(count, NV * kLanes));
    }
  }

#if defined(OC_AVX512)

  template <int NV>
  OC_INLINE void store_row(ptrdiff_t at, const vi* x, int count) const {
    vi bytes = pack<NV>(x);
    if (e.after) {
      const vf inner = setf(e.inner_scale), scale = setf(e.residual_scale), offset = setf(e.final_offset);
      const vi residual = _mm512_maskz_loadu_epi8(mask(count), e.residual + at);
      vi sums[NV];
      unroll<NV>([&](auto v) OC_LAMBDA {
        const vf q = to_float(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(bytes, v)));
        const vf r = to_float(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(residual, v)));
        sums[v] = to_int(min(setf(65536.f), fma(r, scale, fma(q, inner, offset))));
      });
      const vi four[4] = {sums[0], sums[NV > 1 ? 1 : 0], sums[NV > 2 ? 2 : 0], sums[NV > 3 ? 3 : 0]};
      bytes = pack4(four);
    }
    _mm512_mask_storeu_epi8(y + at, mask(count), bytes);
  }

  static OC_INLINE __mmask64 mask(int count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

#else

  template <int NV>
  OC_INLINE void store_row(ptrdiff_t at, const vi* x, int count) const {
    store_bytes<NV>(y + at, x, count, e.table);
    if (e.after) add_residual(y + at, e.residual + at, count);
  }

  OC_INLINE void add_residual(uint8_t* to, const uint8_t* residual, int count) const {
    const vf inner = setf(e.inner_scale), scale = setf(e.residual_scale), offset = setf(e.final_offset);
    for (int i = 0; i < count; i += kLanes) {
      const int n = least(count - i, kLanes);
      const vf value = fma(residual_at(residual + i, n), scale, fma(residual_at(to + i, n), inner, offset));
      store_u8(to + i, to_int(min(setf(65536.f), value)), n);
    }
  }

#endif

#if defined(OC_AVX512)

  template <int MR, int NV>
  OC_INLINE void store_tile(uint8_t* to, const vi* x) const {
    if (NV == 4 || e.stride == NV * kLanes) {  // the tile's bytes, or those of a row, fill vectors
      constexpr int quads = MR * NV / 4, rest = MR * NV % 4;
      unroll<quads>([&](auto q) OC_LAMBDA { store(to + q * (NV == 4 ? e.stride : 64), pack<4>(x + q * 4)); });
      if constexpr (rest > 0) store_part<rest>(to + quads * 64, pack<rest>(x + quads * 4));
    } else {
      each_pixel<MR, NV>(
          x, [&](auto m, auto from, vi bytes) OC_LAMBDA { store_part<NV, from>(to + m * e.stride, bytes); });
    }
  }

  // The first `count` channels of each pixel.
  template <int MR, int NV>
  OC_INLINE void store_some(uint8_t* to, const vi* x, int count) const {
    const __mmask64 some = mask(count);
    each_pixel<MR, NV>(x, [&](auto m, auto from, vi bytes) OC_LAMBDA {
      uint8_t* p = to + m * e.stride;
      if constexpr (NV == 1) _mm_mask_storeu_epi8(p, some, _mm512_extracti32x4_epi32(bytes, from));
      else if constexpr (NV == 2) _mm256_mask_storeu_epi8(p, some, _mm512_extracti64x4_epi64(bytes, from / 2));
      else _mm512_mask_storeu_epi8(p, some, bytes);
    });
  }

  // fn(pixel, its first vector of 16 bytes, the bytes): as many pixels are packed at once as fill a vector.
  template <int MR, int NV, class Fn>
  OC_INLINE void each_pixel(const vi* x, Fn&& fn) const {
    constexpr int each = NV == 3 ? 1 : 4 / NV;
    unroll<(MR + each - 1) / each>([&](auto q) OC_LAMBDA {
      constexpr int m = q * each, pixels = m + each <= MR ? each : MR - m;
      const vi bytes = pack<pixels * NV>(x + m * NV);
      unroll<pixels>([&](auto p) OC_LAMBDA { fn(Index<m + p>{}, Index<p * NV>{}, bytes); });
    });
  }

  template <int parts>
  OC_INLINE vi pack(const vi* x) const {
    const vi four[4] = {x[0], x[parts > 1 ? 1 : 0], x[parts > 2 ? 2 : 0], x[parts > 3 ? 3 : 0]};
    const vi bytes = pack4(four);
    return e.table ? Table(e.table)(bytes) : bytes;
  }

  // `vectors` times 16 bytes from the one at `from` on.
  template <int vectors, int from = 0>
  static OC_INLINE void store_part(uint8_t* to, vi bytes) {
    if constexpr (vectors == 1) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_extracti32x4_epi32(bytes, from));
    } else if constexpr (vectors == 2) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_extracti64x4_epi64(bytes, from / 2));
    } else {
      store_part<2, from>(to, bytes);
      store_part<1, from + 2>(to + 32, bytes);
    }
  }

#endif
};

struct PixelsToFloats {
  const Epilogue& e;
  float* y;

  template <int MR, int NV>
  OC_INLINE void tile(int row, int column, const vi* sums) const {
    unroll<NV>([&](auto v) OC_LAMBDA {
      const int c = column + v * kLanes, count = e.channels - c;
      if (count <= 0) return;
      const vf scale = loadf(e.scale + c), offset = loadf(e.offset + c);
      unroll<MR>([&](auto m) OC_LAMBDA {
        vf value = fma(to_float(sums[m * NV + v]), scale, offset);
        const ptrdiff_t at = (row + m) * e.stride + c;
        if (e.residual) value = fma(residual_at(e.residual + at, count), setf(e.residual_scale), value);
        if (count >= kLanes) storef(y + at, value);
        else storef(y + at, value, count);
      });
    });
  }
};

}  // namespace
}  // namespace oc::OC_ISA
