#include "cpu/excite.hpp"

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

constexpr int kRows = 4;  // of a layer that share the loads of its input

OC_INLINE vf sigmoid(vf x) { return div(setf(1.f), add(setf(1.f), exp(sub(setf(0.f), x)))); }

OC_INLINE vf clamp01(vf x) { return max(min(x, setf(1.f)), setf(0.f)); }

OC_INLINE vf activate(ExciteActivation activation, vf x) {
  switch (activation) {
    case ExciteActivation::kSilu: return mul(x, sigmoid(x));
    case ExciteActivation::kHardSwish: return mul(x, clamp01(fma(x, setf(1.f / 6), setf(0.5f))));
    default: return max(x, setf(0.f));
  }
}

// y[r] = w[r] * x for kRows rows; the first of them stands in for those that the layer does not have.
OC_INLINE void dot_rows(const int8_t* w, int rows, int k, const float* x, float* y) {
  vf sums[kRows];
  const int8_t* row[kRows];
  unroll<kRows>([&](auto r) OC_LAMBDA {
    sums[r] = setf(0.f), row[r] = w + (r < rows ? r * static_cast<ptrdiff_t>(k) : 0);
  });
  int i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    const vf v = loadf(x + i);
    unroll<kRows>([&](auto r) OC_LAMBDA { sums[r] = fma(to_float(load_s8(row[r] + i)), v, sums[r]); });
  }
  if (i < k) {
    const vf v = loadf(x + i, k - i);
    unroll<kRows>([&](auto r) OC_LAMBDA { sums[r] = fma(to_float(load_s8(row[r] + i, k - i)), v, sums[r]); });
  }
  for (int r = 0; r < least(rows, kRows); r++) y[r] = sum(sums[r]);
}

// acc[v] = the sum over h of w[h][c + v * kLanes] * hidden[h]
template <int NV>
OC_INLINE void expand(const ExciteLayers& l, const float* hidden, int c, float* gate) {
  vf acc[NV];
  unroll<NV>([&](auto v) OC_LAMBDA { acc[v] = setf(0.f); });
  const int8_t* w = l.w2 + c;
  for (int h = 0; h < l.hidden; h++, w += l.padded) {
    const vf x = setf(hidden[h]);
    unroll<NV>([&](auto v) OC_LAMBDA { acc[v] = fma(to_float(load_s8(w + v * kLanes)), x, acc[v]); });
  }
  unroll<NV>([&](auto v) OC_LAMBDA {
    const int at = c + v * kLanes;
    const vf x = fma(acc[v], loadf(l.w2_scale + at), loadf(l.b2 + at));
    storef(gate + at, l.gate == ExciteGate::kSigmoid ? sigmoid(x) : clamp01(fma(x, setf(l.alpha), setf(l.beta))));
  });
}

void gates(const ExciteLayers& l, const float* mean, float* hidden, float* gate) {
  for (int r = 0; r < l.hidden; r += kRows)
    dot_rows(l.w1 + static_cast<ptrdiff_t>(r) * l.channels, l.hidden - r, l.channels, mean, hidden + r);
  for (int r = 0; r < l.hidden; r += kLanes) {
    const int count = least(kLanes, l.hidden - r);
    const vf x = fma(loadf(hidden + r, count), loadf(l.w1_scale + r, count), loadf(l.b1 + r, count));
    storef(hidden + r, activate(l.activation, x), count);
  }
  int c = 0;
  for (; c + 4 * kLanes <= l.padded; c += 4 * kLanes) expand<4>(l, hidden, c, gate);
  for (; c < l.padded; c += kLanes) expand<1>(l, hidden, c, gate);
}

}  // namespace

extern const ExciteKernels excite = {gates};

}  // namespace oc::OC_ISA
