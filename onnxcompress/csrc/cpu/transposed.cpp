#include "cpu/transposed.hpp"

#include "cpu/sinks.hpp"

namespace oc::OC_ISA {
namespace {

struct ToSums {
  int32_t* y;
  ptrdiff_t columns;

  template <int NV>
  OC_INLINE void operator()(int row, int column, const vi* sums) const {
    unroll<NV>([&](auto v) OC_LAMBDA {
      const ptrdiff_t c = column + v * kLanes, count = columns - c;
      if (count <= 0) return;
      int32_t* to = y + row * columns + c;
      if (count >= kLanes) return store(to, sums[v]);
      int32_t lanes[kLanes];
      store(lanes, sums[v]);
      std::memcpy(to, lanes, count * sizeof(int32_t));
    });
  }
};

void to_bytes(const Rows& x, int pixels, const PackedWeights& w, const float* scale, const float* offset,
              const uint8_t* table, uint8_t* y) {
  multiply_rows(x, w, 0, pixels, 0, w.n, ToBytes{scale, offset, y, w.n, w.n, table});
}

void to_floats(const Rows& x, int pixels, const PackedWeights& w, const float* scale, const float* offset, float* y) {
  multiply_rows(x, w, 0, pixels, 0, w.n, ToFloats{scale, offset, y, w.n, w.n});
}

void to_sums(const Rows& x, int pixels, const PackedWeights& w, int32_t* y) {
  multiply_rows(x, w, 0, pixels, 0, w.n, ToSums{y, w.n});
}

// f(value, index, count) for each vector of results.
template <class F>
OC_INLINE void each(const int32_t* sums, size_t count, const float* scale, const float* offset, size_t period,
                    const F& f) {
  size_t phase = 0;
  for (size_t i = 0; i < count; i += kLanes) {
    int32_t lanes[kLanes] = {};
    const int n = static_cast<int>(least(count - i, static_cast<size_t>(kLanes)));
    const int32_t* from = sums + i;
    if (n < kLanes) from = static_cast<const int32_t*>(std::memcpy(lanes, from, n * sizeof(int32_t)));
    f(fma(to_float(load(from)), loadf(scale + phase), loadf(offset + phase)), i, n);
    phase += kLanes;
    if (phase == period) phase = 0;
  }
}

void sums_to_bytes(const int32_t* sums, size_t count, const float* scale, const float* offset, size_t period,
                   const uint8_t* table, uint8_t* y) {
  each(sums, count, scale, offset, period, [&](vf value, size_t i, int n) OC_LAMBDA {
    const vi x = to_int(min(setf(65536.f), value));  // beyond int32 the conversion would give its least number
    store_bytes<1>(y + i, &x, n, table);
  });
}

void sums_to_floats(const int32_t* sums, size_t count, const float* scale, const float* offset, size_t period,
                    float* y) {
  each(sums, count, scale, offset, period, [&](vf value, size_t i, int n) OC_LAMBDA {
    n < kLanes ? storef(y + i, value, n) : storef(y + i, value);
  });
}

void accumulate(const int32_t* addend, int count, int32_t* sums) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) store(sums + i, add(load(sums + i), load(addend + i)));
  for (; i < count; i++) sums[i] += addend[i];
}

}  // namespace

extern const TransposedKernels transposed = {kLanes,        pack_weights,   to_bytes,  to_floats, to_sums,
                                             sums_to_bytes, sums_to_floats, accumulate};

}  // namespace oc::OC_ISA
