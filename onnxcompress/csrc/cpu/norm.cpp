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

// A row and what is known of it: s is x + residual.
struct Row {
  const float* s;
  vf mean, factor;
};

// Row r: its sum, into p.sum or `total_row`, and the mean of that.
OC_INLINE void add_up(const LayerNorm& p, int r, float* total_row, Row& row) {
  const ptrdiff_t at = static_cast<ptrdiff_t>(r) * p.c;
  const float* x = p.x + at;
  float* sum_row = p.sum ? p.sum + at : nullptr;
  row.s = x;
  vf sums[4] = {setf(0), setf(0), setf(0), setf(0)};
  if (p.residual) {
    if (sum_row) total_row = sum_row;
    for_vectors(p.c, [&](auto a, int i, int count) OC_LAMBDA {
      const vf value = add(loadf(x + i, count), loadf(p.residual + at + i, count));
      sums[a] = add(sums[a], value);
      storef(total_row + i, value, count);
    });
    row.s = total_row;
  } else {
    for_vectors(p.c, [&](auto a, int i, int count) OC_LAMBDA {
      const vf value = loadf(x + i, count);
      sums[a] = add(sums[a], value);
      if (sum_row && sum_row != x) storef(sum_row + i, value, count);
    });
  }
  row.mean = setf(total(sums) / p.c);
}

// Its variance, by its definition, not by the mean of squares, which cancels where the mean is large.
OC_INLINE void spread(const LayerNorm& p, Row& row) {
  vf squares[4] = {setf(0), setf(0), setf(0), setf(0)};
  for_vectors(p.c, [&](auto a, int i, int count) OC_LAMBDA {
    const vf d = keep(sub(loadf(row.s + i, count), row.mean), count);
    squares[a] = fma(d, d, squares[a]);
  });
  row.factor = setf(1.f / __builtin_sqrtf(total(squares) / p.c + p.epsilon));
}

// The outputs of row r. smoothed: c floats.
OC_INLINE void finish(const LayerNorm& p, int r, const Row& row, float* smoothed) {
  const ptrdiff_t at = static_cast<ptrdiff_t>(r) * p.c;
  float* y = p.y ? p.y + at : nullptr;
  auto normalized = [&](int i, int count) OC_LAMBDA {
    return fma(mul(sub(loadf(row.s + i, count), row.mean), row.factor), loadf(p.gamma + i), loadf(p.beta + i));
  };
  if (p.q && !p.row_scale) {
    const vf zero_point = setf(p.zero_point), limit = setf(65536.f);
    for_panels(p.c, [&](int i, auto columns) OC_LAMBDA {
      vi bytes[kPanel];
      unroll<kPanel>([&](auto v) OC_LAMBDA {
        const int c = i + v * kLanes, count = columns - v * kLanes;
        bytes[v] = zero();
        if (count <= 0) return;
        const vf value = normalized(c, count);
        if (y) storef(y + c, value, count);
        bytes[v] = to_int(min(limit, fma(value, loadf(p.inverse + c), zero_point)));
      });
      store_bytes<kPanel>(p.q + at + i, bytes, columns, nullptr);
    });
    return;
  }
  for_vectors(p.c, [&](auto, int i, int count) OC_LAMBDA {
    const vf value = normalized(i, count);
    if (y) storef(y + i, value, count);
    if (p.row_scale) storef(smoothed + i, p.inverse ? mul(value, loadf(p.inverse + i)) : value, count);
  });
  if (p.row_scale) quantize_rows_by_range(smoothed, 1, p.c, p.q + at, p.row_scale + r, p.row_zero_point + r, nullptr);
}

// Three rows are under way, each a step behind the next: what waits for a row's mean or factor then waits for nothing.
void layer_norm(const LayerNorm& p, int rows, float* scratch) {
  float* smoothed = scratch + 3 * p.c;
  Row newest{}, next, current;
  add_up(p, 0, scratch, next);
  if (rows > 1) add_up(p, 1, scratch + p.c, newest);
  spread(p, next);
  for (int r = 0; r < rows; r++) {
    current = next, next = newest;
    if (r + 2 < rows) add_up(p, r + 2, scratch + (r + 2) % 3 * p.c, newest);
    if (r + 1 < rows) spread(p, next);
    finish(p, r, current, smoothed);
  }
}

}  // namespace

extern const NormKernels norm = {layer_norm};

}  // namespace oc::OC_ISA
