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

// y = table[saturate(round(sum * scale + offset))]: unsigned bytes, `stride` a row. scale and offset are padded to whole
// vectors; the zero point is part of the offset.
struct ToBytes {
  const float *scale, *offset;
  uint8_t* y;
  ptrdiff_t stride;
  int columns;
  const uint8_t* table;

  template <int NV>
  OC_INLINE void operator()(int row, int column, const vi* sums) const {
    vi x[NV];
    unroll<NV>([&](auto v) OC_LAMBDA {
      const int c = column + v * kLanes;
      const vf value = fma(to_float(sums[v]), loadf(scale + c), loadf(offset + c));
      x[v] = to_int(min(setf(65536.f), value));  // beyond int32 the conversion would give its least number
    });
    store_bytes<NV>(y + row * stride + column, x, columns - column, table);
  }
};

// y = sum * scale + offset: floats, `stride` a row.
struct ToFloats {
  const float *scale, *offset;
  float* y;
  ptrdiff_t stride;
  int columns;

  template <int NV>
  OC_INLINE void operator()(int row, int column, const vi* sums) const {
    unroll<NV>([&](auto v) OC_LAMBDA {
      const int c = column + v * kLanes, count = columns - c;
      if (count <= 0) return;
      const vf value = fma(to_float(sums[v]), loadf(scale + c), loadf(offset + c));
      float* to = y + row * stride + c;
      if (count >= kLanes) storef(to, value);
      else storef(to, value, count);
    });
  }
};

}  // namespace
}  // namespace oc::OC_ISA
