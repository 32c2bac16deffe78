#include "cpu/pool.hpp"

#include "cpu/pool_sums.hpp"

namespace oc::OC_ISA {
namespace {

// Calls fn(offset, count) for each vector of a run of bytes: all but the last are whole.
template <class F>
OC_INLINE void vectors(size_t count, F&& fn) {
  size_t i = 0;
  for (; i + kBytes <= count; i += kBytes) fn(i, Index<1>{}, kBytes);
  if (i < count) fn(i, Index<0>{}, static_cast<int>(count - i));
}

OC_INLINE vb loadb(const uint8_t* p, int whole, int count) { return whole ? loadb(p) : loadb(p, count); }

// The greatest of `many` vectors, `stride` apart.
OC_INLINE vb greatest(const uint8_t* x, ptrdiff_t stride, int many, int whole, int count) {
  vb best = loadb(x, whole, count);
  for (int r = 1; r < many; r++) best = maxb(best, loadb(x + r * stride, whole, count));
  return best;
}

void max_rows(const uint8_t* x, ptrdiff_t stride, int rows, uint8_t* y, size_t count) {
  vectors(count, [&](size_t i, auto whole, int n) OC_LAMBDA {
    const vb best = greatest(x + i, stride, rows, whole, n);
    if (whole) storeb(y + i, best);
    else storeb(y + i, best, n);
  });
}

void max_columns(const PoolColumns& c, const uint8_t* x, uint8_t* y) {
  with_table(c.table, [&](auto has_table, const ByteTable& look) OC_LAMBDA {
    auto run = [&](const uint8_t* x, uint8_t* y, size_t count) OC_LAMBDA {
      vectors(count, [&](size_t i, auto whole, int n) OC_LAMBDA {
        vb best = greatest(x + i, c.channels, c.width, whole, n);
        if (has_table) best = look(best);
        if (whole) storeb(y + i, best);
        else storeb(y + i, best, n);
      });
    };
    if (c.step == c.channels) return run(x, y, static_cast<size_t>(c.windows) * c.channels);
    for (int j = 0; j < c.windows; j++) run(x + j * c.step, y + static_cast<size_t>(j) * c.channels, c.channels);
  });
}

void sum_rows(const uint8_t* x, ptrdiff_t stride, int rows, int32_t* y, size_t count) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    vi sum = load_u8(x + i);
    for (int r = 1; r < rows; r++) sum = add(sum, load_u8(x + i + r * stride));
    store(y + i, sum);
  }
  for (; i < count; i++) {
    y[i] = 0;
    for (int r = 0; r < rows; r++) y[i] += x[i + r * stride];
  }
}

OC_INLINE vi load_lanes(const int32_t* p, int count) {
  if (count >= kLanes) return load(p);
  int32_t lanes[kLanes] = {};
  std::memcpy(lanes, p, sizeof(int32_t) * count);
  return load(lanes);
}

void average_columns(const PoolColumns& c, const int32_t* x, const float* scale, const int32_t* zero, int y_zero,
                     uint8_t* y) {
  const vi zero_point = set(y_zero);
  for (int j = 0; j < c.windows; j++, x += c.step) {
    const vf s = setf(scale[j]);
    const vi none = set(zero[j]);
    int count = 0;
    for (int i = 0; i < c.channels; i += kLanes, y += count) {
      count = least(c.channels - i, kLanes);
      vi sum = load_lanes(x + i, count);
      for (int k = 1; k < c.width; k++)
        sum = add(sum, load_lanes(x + i + k * static_cast<ptrdiff_t>(c.channels), count));
      store_u8(y, add(maxi(nearest(mul(to_float(sub(sum, none)), s)), set(-65536)), zero_point), count);
      if (c.table)
        for (int k = 0; k < count; k++) y[k] = c.table[y[k]];
    }
  }
}

}  // namespace

extern const PoolKernels pool = {max_rows, max_columns, sum_rows, average_columns, channel_sums};

}  // namespace oc::OC_ISA
