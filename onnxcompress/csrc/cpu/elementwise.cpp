#include "cpu/elementwise.hpp"

#include "cpu/bytes_vector.hpp"

namespace oc::OC_ISA {
namespace {

struct Sum {
  vf a_scale, b_scale, offset;
  explicit OC_INLINE Sum(const Combination& c)
      : a_scale(setf(c.a_scale)), b_scale(setf(c.b_scale)), offset(setf(c.offset)) {}
  OC_INLINE vf operator()(vf a, vf b) const { return fma(b, b_scale, fma(a, a_scale, offset)); }
};

struct Product {
  vf a_scale, offset, b_zero;
  explicit OC_INLINE Product(const Combination& c)
      : a_scale(setf(c.a_scale)), offset(setf(c.offset)), b_zero(setf(c.b_zero)) {}
  OC_INLINE vf operator()(vf a, vf b) const { return mul(fma(a, a_scale, offset), sub(b, b_zero)); }
};

OC_INLINE vf lanes(const uint8_t* p) { return to_float(load_u8(p)); }
OC_INLINE vf lanes(const float* p) { return loadf(p); }

// Of bytes the parameters bound the result; floats may be anything.
OC_INLINE vi rounded(const uint8_t*, vf x) { return to_int(x); }
OC_INLINE vi rounded(const float*, vf x) { return nearest(x); }

// The last bytes of a run, in a block of their own: what is behind the run is neither read nor written.
template <class T>
struct Tail {
  T values[kBytes] = {};
  Tail(const T* p, size_t count) { std::memcpy(values, p, count * sizeof(T)); }
};

template <class Op, class B>
OC_INLINE void combine(const Combination& c, const uint8_t* a, const B* b, uint8_t* y, size_t count) {
  const Op op(c);
  const vi zero_point = set(c.y_zero);
  with_table(c.table, [&](auto has_table, const ByteTable& look) OC_LAMBDA {
    auto block = [&](const uint8_t* a, const B* b) OC_LAMBDA {
      vi x[4];
      unroll<4>([&](auto v) OC_LAMBDA { x[v] = rounded(b, op(lanes(a + v * kLanes), lanes(b + v * kLanes))); });
      const vb bytes = pack(x, zero_point);
      return has_table ? look(bytes) : bytes;
    };
    size_t i = 0;
    for (; i + kBytes <= count; i += kBytes) storeb(y + i, block(a + i, b + i));
    if (i == count) return;
    const Tail<uint8_t> a_tail(a + i, count - i);
    const Tail<B> b_tail(b + i, count - i);
    storeb(y + i, block(a_tail.values, b_tail.values), static_cast<int>(count - i));
  });
}

template <class Op, class B>
void combine_run(const Combination& c, const uint8_t* a, const B* b, uint8_t* y, size_t count) {
  combine<Op, B>(c, a, b, y, count);
}

template <bool kTableIn>
OC_INLINE void affine_run(const Affine& c, const uint8_t* x, uint8_t* y, size_t count) {
  const vi zero_point = set(c.y_zero);
  static const uint8_t none[256] = {};
  const ByteTable look_in(kTableIn ? c.table_in : none);
  with_table(c.table_out, [&](auto has_table, const ByteTable& look_out) OC_LAMBDA {
    auto block = [&](const uint8_t* x, int channel) OC_LAMBDA {
      vi lanes[4];
      if (kTableIn) widen(look_in(loadb(x)), lanes);
      else widen(x, lanes);
      unroll<4>([&](auto v) OC_LAMBDA {
        const int at = channel + v * kLanes;
        lanes[v] = to_int(fma(to_float(lanes[v]), loadf(c.scale + at), loadf(c.offset + at)));
      });
      const vb bytes = pack(lanes, zero_point);
      return has_table ? look_out(bytes) : bytes;
    };
    const int step = kBytes % c.channels;
    int channel = 0;
    size_t i = 0;
    for (; i + kBytes <= count; i += kBytes) {
      storeb(y + i, block(x + i, channel));
      channel += step;
      if (channel >= c.channels) channel -= c.channels;
    }
    if (i == count) return;
    const Tail<uint8_t> tail(x + i, count - i);
    storeb(y + i, block(tail.values, channel), static_cast<int>(count - i));
  });
}

void affine(const Affine& c, const uint8_t* x, uint8_t* y, size_t count) {
  if (c.table_in) affine_run<true>(c, x, y, count);
  else affine_run<false>(c, x, y, count);
}

}  // namespace

extern const ElementwiseKernels elementwise = {combine_run<Sum, uint8_t>, combine_run<Sum, float>,
                                               combine_run<Product, uint8_t>, combine_run<Product, float>, affine};

}  // namespace oc::OC_ISA
