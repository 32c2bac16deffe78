// What becomes of the sums of a tile: sinks of gemm.hpp.
#pragma once

#include "cpu/gemm.hpp"

namespace oc::OC_ISA {
namespace {

// Saturates NV vectors of whole numbers to bytes, looks them up in `table` where there is one, and stores those of the
// first `count` columns.
template <int NV>
OC_INLINE void store_bytes(uint8_t* y, const vi* x, int count, const uint8_t* table) {
#if defined(OC_AVX512)
  const vi four[4] = {x[0], x[NV > 1 ? 1 : 0], x[NV > 2 ? 2 : 0], x[NV > 3 ? 3 : 0]};
  vi bytes = pack4(four);
  if (table) bytes = Table(table)(bytes);
  if (NV == 4 && count >= 64) return store(y, bytes);
  const int n = least(count, NV * kLanes);
  _mm512_mask_storeu_epi8(y, n >= 64 ? ~0ull : (1ull << n) - 1, bytes);
#else
  unroll<NV>([&](auto v) OC_LAMBDA {
    const int n = least(count - v * kLanes, kLanes);
    if (n > 0) store_u8(y + v * kLanes, x[v], n);
  });
  if (table)
    for (int i = 0; i < least(count, NV * kLanes); i++) y[i] = table[y[i]];
#endif
}

// y = table[saturate(round(sum * scale + offset + residual * residual_scale))]: unsigned bytes, `stride` a row.
// scale and offset are padded to whole vectors; the zero point and the residual's are part of the offset.
template <bool kResidual>
struct ToBytes {
  const float *scale, *offset;
  uint8_t* y;
  ptrdiff_t stride;
  int columns;
  const uint8_t* table = nullptr;
  const uint8_t* residual = nullptr;
  ptrdiff_t residual_stride = 0;
  float residual_scale = 0;

  template <int NV>
  OC_INLINE void operator()(int row, int column, const vi* sums) const {
    vi x[NV];
    const int count = columns - column;
    unroll<NV>([&](auto v) OC_LAMBDA {
      const int c = column + v * kLanes;
      vf value = fma(to_float(sums[v]), loadf(scale + c), loadf(offset + c));
      if (kResidual) {
        const uint8_t* r = residual + row * residual_stride + c;
        const int n = count - v * kLanes;
        vi bytes = n >= kLanes ? load_u8(r) : n > 0 ? load_u8(r, n) : zero();
        value = fma(to_float(bytes), setf(residual_scale), value);
      }
      x[v] = to_int(min(value, setf(65536.f)));  // beyond int32 the conversion would give its least number
    });
    store_bytes<NV>(y + row * stride + column, x, count, table);
  }
};

// y = sum * scale + offset (+ residual): floats, `stride` a row.
struct ToFloats {
  const float *scale, *offset;
  float* y;
  ptrdiff_t stride;
  int columns;
  const float* residual = nullptr;
  ptrdiff_t residual_stride = 0;

  template <int NV>
  OC_INLINE void operator()(int row, int column, const vi* sums) const {
    unroll<NV>([&](auto v) OC_LAMBDA {
      const int c = column + v * kLanes, count = columns - c;
      if (count <= 0) return;
      vf value = fma(to_float(sums[v]), loadf(scale + c), loadf(offset + c));
      const float* r = residual ? residual + row * residual_stride + c : nullptr;
      float* to = y + row * stride + c;
      if (count >= kLanes) storef(to, r ? add(value, loadf(r)) : value);
      else storef(to, r ? add(value, loadf(r, count)) : value, count);
    });
  }
};

}  // namespace
}  // namespace oc::OC_ISA
