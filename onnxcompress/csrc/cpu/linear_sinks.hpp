// What becomes of the sums of a linear layer, for every kind of output: see LinearOutput.
#pragma once

#include "cpu/linear.hpp"
#include "cpu/sinks.hpp"

namespace oc::OC_ISA {
namespace {

// Rows of `vectors` vectors of sums. Compiled once for each kind, not once for each shape of a tile.
using Finish = void (*)(const LinearOutput& o, int n, int row, int rows, int column, int vectors, const vi* sums);

// A sink that hands the sums of a whole tile to a function, by way of memory.
struct Deferred {
  const LinearOutput* output;
  int n;
  Finish finish;

  template <int MR, int NV>
  OC_INLINE void tile(int row, int column, const vi* sums) const {
    vi kept[MR * NV];
    unroll<MR * NV>([&](auto i) OC_LAMBDA { kept[i] = sums[i]; });
    finish(*output, n, row, MR, column, NV, kept);
  }
};

template <Activation::Kind kKind, bool kBytes, bool kRows>
void finish(const LinearOutput& o, int n, int row, int rows, int column, int vectors, const vi* sums) {
  constexpr bool kFolded = kBytes && (kKind == Activation::kNone || kKind == Activation::kRelu);
  const Activate<kKind> activate(o.activation);
  const vf zero_point = setf(o.zero_point);
  auto finish_row = [&](auto columns) OC_LAMBDA {
    const vf row_scale = kRows ? setf(o.row_scale[row]) : setf(1);
    const vi row_zero = kRows ? set(o.row_zero_point[row]) : zero();
    const ptrdiff_t at = static_cast<ptrdiff_t>(row) * n + column;
    float* floats = kBytes ? nullptr : o.floats + static_cast<ptrdiff_t>(row - o.first_row) * n + column;
    vi x[kPanel];
    unroll<kPanel>([&](auto v) OC_LAMBDA {
      x[v] = zero();
      const int c = column + v * kLanes, count = columns - v * kLanes;
      if (count <= 0) return;
      vf value;
      if constexpr (kRows) {
        const vi centred = sub(sums[v], mul(row_zero, load(o.weight_sums + c)));
        value = fma(mul(to_float(centred), row_scale), loadf(o.scale + c), loadf(o.offset + c));
      } else {
        value = fma(to_float(sums[v]), loadf(o.scale + c), loadf(o.offset + c));
      }
      if constexpr (kFolded && kKind == Activation::kRelu) value = max(value, zero_point);
      else if constexpr (!kFolded) value = activate(value);
      if (o.residual) {
        const vf r = loadf(o.residual + at + v * kLanes, count);
        value = kFolded ? fma(r, loadf(o.inverse + c), value) : add(value, r);
      }
      if constexpr (kBytes) {
        if constexpr (!kFolded) value = fma(value, loadf(o.inverse + c), zero_point);
        x[v] = to_int(min(setf(65536.f), value));  // beyond int32 the conversion would give its least number
      } else {
        if (o.inverse) value = mul(value, loadf(o.inverse + c));
        storef(floats + v * kLanes, value, count);
      }
    });
    if constexpr (kBytes) store_bytes<kPanel>(o.bytes + at, x, columns, o.table);
  };
  const int columns = least(n - column, vectors * kLanes), end = row + rows;
  if (columns == kPanel * kLanes)
    for (; row < end; row++, sums += vectors) finish_row(Index<kPanel * kLanes>{});
  else
    for (; row < end; row++, sums += vectors) finish_row(columns);
}

template <Activation::Kind kKind>
Finish finish_of(const LinearOutput& o) {
  if (o.bytes) return o.row_scale ? finish<kKind, true, true> : finish<kKind, true, false>;
  return o.row_scale ? finish<kKind, false, true> : finish<kKind, false, false>;
}

inline Finish finish_of(const LinearOutput& o) {
  return with_kind(o.activation, [&](auto kind) { return finish_of<kind>(o); });
}

}  // namespace
}  // namespace oc::OC_ISA
