#include "cpu/int4.hpp"

#include "cpu/sinks.hpp"

namespace oc::OC_ISA {
namespace {

#if defined(OC_AVX512)
constexpr int kRowsAtOnce = 3;  // by kPanel vectors, of integers and of floats
OC_INLINE vi high_halves(vi x) { return _mm512_and_si512(x, set(static_cast<int32_t>(0xf0f0f0f0u))); }
OC_INLINE vi low_halves(vi x) { return high_halves(_mm512_slli_epi32(x, 4)); }
#elif defined(OC_AVX2)
constexpr int kRowsAtOnce = 2;
OC_INLINE vi high_halves(vi x) { return _mm256_and_si256(x, set(static_cast<int32_t>(0xf0f0f0f0u))); }
OC_INLINE vi low_halves(vi x) { return high_halves(_mm256_slli_epi32(x, 4)); }
#else
constexpr int kRowsAtOnce = 2;
OC_INLINE vi high_halves(vi x) { return x & set(static_cast<int32_t>(0xf0f0f0f0u)); }
OC_INLINE vi low_halves(vi x) {
  typedef uint32_t vu __attribute__((vector_size(32)));
  return high_halves((vi)((vu)x << 4));
}
#endif

OC_INLINE int octets(int block) { return ceil_div(block, 8); }

size_t packed_bytes(int n, int blocks, int block) {
  return static_cast<size_t>(padded(n)) * blocks * octets(block) * 4;
}

void pack(const uint8_t* w, const float* w_scale, int n, int blocks, int block, uint8_t* data, float* scale) {
  const size_t row = static_cast<size_t>(blocks) * block / 2;
  for (int column = 0; column < n; column += kPanel * kLanes) {
    const int outputs = least(kPanel * kLanes, padded(n) - column);
    for (int b = 0; b < blocks; b++) {
      for (int i = 0; i < octets(block); i++)
        for (int c = column; c < column + outputs; c++)
          for (int j = 0; j < 4; j++) {
            // Of k and k + 4; 8 is flipped away: the halves become two's complements.
            auto half = [&](int k) {
              if (c >= n || k >= block) return 0;
              const size_t at = static_cast<size_t>(b) * block + k;
              return ((w[c * row + at / 2] >> (at % 2 * 4)) & 15) ^ 8;
            };
            *data++ = static_cast<uint8_t>(half(i * 8 + j) | half(i * 8 + 4 + j) << 4);
          }
      for (int c = column; c < column + outputs; c++)
        *scale++ = c < n ? w_scale[static_cast<size_t>(c) * blocks + b] / 16 : 0.f;
    }
  }
}

// Sums of MR rows and one panel: [row][vector].
template <int MR, int NV>
__attribute__((noinline)) void multiply_panel4(const Int4Weights& w, const uint8_t* x, ptrdiff_t stride,
                                               const uint8_t* panel, const float* scale, float* out) {
  constexpr int kChains = MR == 1 ? 2 : 1;
  vf sums[MR * NV];
  unroll<MR * NV>([&](auto i) OC_LAMBDA { sums[i] = setf(0); });
  const int count = octets(w.block);
  for (int b = 0; b < w.blocks; b++, scale += NV * kLanes) {
    vi part[kChains * MR * NV];
    unroll<kChains * MR * NV>([&](auto i) OC_LAMBDA { part[i] = zero(); });
    const uint8_t* a = x + static_cast<ptrdiff_t>(b) * w.block;
    for (int i = 0; i < count; i++, a += 8, panel += NV * kLanes * 4) {
      prefetch(panel + 2048);
      vi low[NV], high[NV];
      unroll<NV>([&](auto v) OC_LAMBDA {
        const vi both = load(panel + v * kLanes * 4);
        low[v] = low_halves(both), high[v] = high_halves(both);
      });
      unroll<MR>([&](auto m) OC_LAMBDA {
        const vi first = broadcast4(a + m * stride), second = broadcast4(a + m * stride + 4);
        unroll<NV>([&](auto v) OC_LAMBDA {
          constexpr int at = m * NV + v, other = (kChains - 1) * MR * NV + at;
          part[at] = dot(part[at], first, low[v]);
          part[other] = dot(part[other], second, high[v]);
        });
      });
    }
    unroll<MR * NV>([&](auto i) OC_LAMBDA {
      vi sum = part[i];
      if constexpr (kChains == 2) sum = add(sum, part[MR * NV + i]);
      sums[i] = fma(to_float(sum), loadf(scale + i % NV * kLanes), sums[i]);
    });
  }
  unroll<MR * NV>([&](auto i) OC_LAMBDA { storef(out + i * kLanes, sums[i]); });
}

using Finish = void (*)(const Int4Weights& w, const Int4Output& y, int row, int rows, int column, int vectors,
                        const float* sums);

template <Activation::Kind A>
void finish(const Int4Weights& w, const Int4Output& y, int row, int rows, int column, int vectors, const float* sums) {
  const Activate<A> activate(y.activation);
  for (int end = row + rows; row < end; row++, sums += vectors * kLanes) {
    const vf x_scale = setf(y.row_scale ? y.row_scale[row] : y.x_scale);
    const vf x_zero = setf(y.row_zero ? y.row_zero[row] : y.x_zero);
    const ptrdiff_t at = static_cast<ptrdiff_t>(row) * w.n + column;
    vi bytes[kPanel];
    unroll<kPanel>([&](auto v) OC_LAMBDA {
      bytes[v] = zero();
      const int c = column + v * kLanes, count = w.n - c;
      if (v >= vectors || count <= 0) return;
      const vf sum = sub(loadf(sums + v * kLanes), mul(x_zero, loadf(w.zero_sum + c)));
      vf value = activate(fma(sum, x_scale, loadf(y.offset + c)));
      if (y.residual) value = add(value, loadf(y.residual + at + v * kLanes, count));
      if (y.floats) storef(y.floats + at + v * kLanes, value, count);
      else bytes[v] = to_int(min(setf(65536.f), fma(value, loadf(y.inverse + c), setf(y.zero))));
    });
    if (y.bytes) store_bytes<kPanel>(y.bytes + at, bytes, least(w.n - column, vectors * kLanes), nullptr);
  }
}

Finish finish_of(const Activation& activation) {
  return with_kind(activation, [](auto kind) -> Finish { return finish<kind>; });
}

template <int NV>
void multiply_rows4(const Int4Weights& w, const uint8_t* x, ptrdiff_t stride, int begin, int end, int column,
                    const Int4Output& y, Finish finish_rows) {
  const uint8_t* panel = w.data + packed_bytes(column, w.blocks, w.block);
  const float* scale = w.scale + static_cast<size_t>(column) * w.blocks;
  float sums[kRowsAtOnce * NV * kLanes];
  for (int row = begin; row < end;) {
    const uint8_t* from = x + row * stride;
    const int rows = least(end - row, kRowsAtOnce);
    if (rows == 1) multiply_panel4<1, NV>(w, from, stride, panel, scale, sums);
    else if (rows == 2) multiply_panel4<2, NV>(w, from, stride, panel, scale, sums);
    else multiply_panel4<kRowsAtOnce, NV>(w, from, stride, panel, scale, sums);
    finish_rows(w, y, row, rows, column, NV, sums);
    row += rows;
  }
}

void multiply(const Int4Weights& w, const uint8_t* x, ptrdiff_t stride, int begin, int end, int column_begin,
              int column_end, const Int4Output& y) {
  const Finish finish_rows = finish_of(y.activation);
  for (int column = column_begin; column < column_end; column += kPanel * kLanes) {
    auto run = [&](auto vectors) { multiply_rows4<vectors>(w, x, stride, begin, end, column, y, finish_rows); };
    switch (least(kPanel, (padded(w.n) - column) / kLanes)) {
      case 1: run(Index<1>{}); break;
      case 2: run(Index<2>{}); break;
#if defined(OC_AVX512)
      case 3: run(Index<3>{}); break;
      case 4: run(Index<4>{}); break;
#endif
    }
  }
}

}  // namespace

extern const Int4Kernels int4 = {kPanel * kLanes, kLanes, packed_bytes, pack, multiply};

}  // namespace oc::OC_ISA
