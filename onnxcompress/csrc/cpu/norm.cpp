#include "cpu/norm.hpp"

#include "cpu/row_quantize.hpp"

namespace oc::OC_ISA {
namespace {

// f(integral constant accumulator, column, columns left) for each vector of c columns, in turn over four accumulators.
template <class F>
OC_INLINE void for_vectors(int c, F&& f) {
  int i = 0;
  for (; i + 4 * kLanes <= c; i += 4 * kLanes)
    unroll<4>([&](auto v) OC_LAMBDA { f(v, i + v * kLanes, kLanes); });
  for (; i < c; i += kLanes) f(Index<0>{}, i, least(c - i, kLanes));
}

OC_INLINE float total(const vf* x) { return sum(add(add(x[0], x[1]), add(x[2], x[3]))); }

// The first `count` lanes of x; zeros beyond.
OC_INLINE vf keep(vf x, int count) {
  if (count >= kLanes) return x;
  float lanes[kLanes];
  storef(lanes, x);
  return loadf(lanes, count);
}

// One row; a variance by its definition, not by the mean of squares, which cancels where the mean is large.
void normalize_row(const LayerNorm& p, float* scratch) {
  const float* s = p.x;
  vf sums[4] = {setf(0), setf(0), setf(0), setf(0)}, squares[4] = {setf(0), setf(0), setf(0), setf(0)};
  if (p.residual) {
    float* total_row = p.sum ? p.sum : scratch;
    for_vectors(p.c, [&](auto a, int i, int count) OC_LAMBDA {
      const vf value = add(loadf(p.x + i, count), loadf(p.residual + i, count));
      sums[a] = add(sums[a], value);
      storef(total_row + i, value, count);
    });
    s = total_row;
  } else {
    for_vectors(p.c, [&](auto a, int i, int count) OC_LAMBDA {
      const vf value = loadf(p.x + i, count);
      sums[a] = add(sums[a], value);
      if (p.sum && p.sum != p.x) storef(p.sum + i, value, count);
    });
  }
  const float mean = total(sums) / p.c;
  const vf centre = setf(mean);
  for_vectors(p.c, [&](auto a, int i, int count) OC_LAMBDA {
    const vf d = keep(sub(loadf(s + i, count), centre), count);
    squares[a] = fma(d, d, squares[a]);
  });
  const vf factor = setf(1.f / __builtin_sqrtf(total(squares) / p.c + p.epsilon));
  const bool by_range = p.row_scale != nullptr;
  float* smoothed = scratch + p.c;
  auto normalized = [&](int i, int count) OC_LAMBDA {
    return fma(mul(sub(loadf(s + i, count), centre), factor), loadf(p.gamma + i), loadf(p.beta + i));
  };
  if (p.q && !by_range) {
    const vf zero_point = setf(p.zero_point), limit = setf(65536.f);
    for_panels(p.c, [&](int i, auto columns) OC_LAMBDA {
      vi bytes[kPanel];
      unroll<kPanel>([&](auto v) OC_LAMBDA {
        const int at = i + v * kLanes, count = columns - v * kLanes;
        bytes[v] = zero();
        if (count <= 0) return;
        const vf value = normalized(at, count);
        if (p.y) storef(p.y + at, value, count);
        bytes[v] = to_int(min(limit, fma(value, loadf(p.inverse + at), zero_point)));
      });
      store_bytes<kPanel>(p.q + i, bytes, columns, nullptr);
    });
    return;
  }
  for_vectors(p.c, [&](auto, int i, int count) OC_LAMBDA {
    const vf value = normalized(i, count);
    if (p.y) storef(p.y + i, value, count);
    if (by_range) storef(smoothed + i, p.inverse ? mul(value, loadf(p.inverse + i)) : value, count);
  });
  if (by_range) quantize_by_range(smoothed, p.c, p.q, p.row_scale, p.row_zero_point, nullptr);
}

void layer_norm(const LayerNorm& first, int rows, float* scratch) {
  LayerNorm p = first;
  for (int r = 0; r < rows; r++) {
    normalize_row(p, scratch);
    p.x += p.c;
    if (p.residual) p.residual += p.c;
    if (p.sum) p.sum += p.c;
    if (p.y) p.y += p.c;
    if (p.q) p.q += p.c;
    if (p.row_scale) p.row_scale++, p.row_zero_point++;
  }
}

}  // namespace

extern const NormKernels norm = {layer_norm};

}  // namespace oc::OC_ISA
