// Quantization of one row by its own range.
#pragma once

#include "cpu/sinks.hpp"

namespace oc::OC_ISA {
namespace {

// f(column, columns left) for each panel of n columns; the second is a constant where the panel is whole.
template <class F>
OC_INLINE void for_panels(int n, F&& f) {
  constexpr int kColumns = kPanel * kLanes;
  int i = 0;
  for (; i + kColumns <= n; i += kColumns) f(i, Index<kColumns>{});
  if (i < n) f(i, n - i);
}

// y = saturate(round(x * inverse) + zero_point) of n floats, through `table` where there is one.
OC_INLINE void quantize_row(const float* x, int n, float inverse, float zero_point, uint8_t* y, const uint8_t* table) {
  const vf factor = setf(inverse), shift = setf(zero_point), limit = setf(65536.f);
  for_panels(n, [&](int i, auto columns) OC_LAMBDA {
    vi q[kPanel];
    unroll<kPanel>([&](auto v) OC_LAMBDA {
      const int count = columns - v * kLanes;
      q[v] = zero();
      if (count > 0) q[v] = to_int(min(limit, fma(loadf(x + i + v * kLanes, count), factor, shift)));
    });
    store_bytes<kPanel>(y + i, q, columns, table);
  });
}

// How a row is quantized by its own range, which is extended to contain 0.
struct RowRange {
  float scale;
  uint8_t zero_point;
};

OC_INLINE RowRange find_range(const float* x, int n) {
  vf low[kPanel], high[kPanel];
  unroll<kPanel>([&](auto v) OC_LAMBDA { low[v] = high[v] = setf(0); });
  for_panels(n, [&](int i, auto columns) OC_LAMBDA {
    unroll<kPanel>([&](auto v) OC_LAMBDA {
      if (columns <= v * kLanes) return;
      const vf value = loadf(x + i + v * kLanes, columns - v * kLanes);
      low[v] = min(value, low[v]), high[v] = max(value, high[v]);  // not-a-number is passed over
    });
  });
  unroll<kPanel - 1>([&](auto v) OC_LAMBDA { low[0] = min(low[0], low[v + 1]), high[0] = max(high[0], high[v + 1]); });
  const float least_value = minimum(low[0]), most_value = maximum(high[0]);
  const float scale = most((most_value - least_value) / 255.f, 1e-12f);
  const float zero = least(__builtin_nearbyintf(-least_value / scale), 255.f);
  return {scale, static_cast<uint8_t>(zero > 0 ? zero : 0)};
}

// `rows` rows of n floats to bytes, each by its own range. The next row's range is looked for before a row is written,
// which then waits for nothing.
inline void quantize_rows_by_range(const float* x, int rows, int n, uint8_t* y, float* scale, uint8_t* zero_point,
                                   const uint8_t* table) {
  RowRange next = find_range(x, n);
  for (int r = 0; r < rows; r++, x += n, y += n) {
    const RowRange range = next;
    if (r + 1 < rows) next = find_range(x + n, n);
    scale[r] = range.scale, zero_point[r] = range.zero_point;
    quantize_row(x, n, 1.f / range.scale, range.zero_point, y, table);
  }
}

}  // namespace
}  // namespace oc::OC_ISA
