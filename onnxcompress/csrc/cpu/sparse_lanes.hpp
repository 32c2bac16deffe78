// Few rows against blocks of 16 or 4 outputs: outputs as lanes, so that rows stay as they are.
#pragma once

#include "cpu/sparse.hpp"
#include "cpu/sparse_tile.hpp"

namespace oc::OC_ISA {
namespace {

// Sums of M rows and of outputs [begin, end), [row][pitch]; begin is a multiple of 16. Rows of x are `stride` bytes
// apart and padded to a multiple of 4. Blocks of 16 outputs: one broadcast of a row's four bytes serves a whole block.
template <int M>
void multiply_lanes(const SparseWeights& w, const uint8_t* x, ptrdiff_t stride, int begin, int end, int32_t* sums,
                    int pitch) {
  constexpr int kVectors = 16 / kLanes, kChains = M == 1 ? 4 : M == 2 ? 2 : 1;
  for (int g = begin / 16; g * 16 < end; g++) {
    vi total[kChains * M * kVectors];
    unroll<M>([&](auto m) OC_LAMBDA {
      unroll<kVectors>([&](auto v) OC_LAMBDA { total[m * kVectors + v] = load(w.initial + g * 16 + v * kLanes); });
    });
    unroll<(kChains - 1) * M * kVectors>([&](auto i) OC_LAMBDA { total[M * kVectors + i] = zero(); });
    auto multiply = [&](int i, vi* to) OC_LAMBDA {
      vi b[kVectors];
      unroll<kVectors>([&](auto v) OC_LAMBDA { b[v] = load(w.values + static_cast<size_t>(i) * 64 + v * kLanes * 4); });
      const uint8_t* a = x + static_cast<size_t>(w.column[i]) * 4;
      unroll<M>([&](auto m) OC_LAMBDA {
        const vi row = broadcast4(a + m * stride);
        unroll<kVectors>([&](auto v) OC_LAMBDA { to[m * kVectors + v] = dot(to[m * kVectors + v], row, b[v]); });
      });
    };
    int i = w.row_start[g];
    const int last = w.row_start[g + 1];
    for (; i + kChains <= last; i += kChains)
      unroll<kChains>([&](auto c) OC_LAMBDA { multiply(i + c, total + c * M * kVectors); });
    for (; i < last; i++) multiply(i, total);
    unroll<M * kVectors>([&](auto j) OC_LAMBDA {
      vi sum = total[j];
      unroll<kChains - 1>([&](auto c) OC_LAMBDA { sum = add(sum, total[(c + 1) * M * kVectors + j]); });
      store(sums + static_cast<size_t>(j / kVectors) * pitch + g * 16 - begin + j % kVectors * kLanes, sum);
    });
  }
}

// Four bytes at p in the four lanes from 4 * J on; the others as in x.
template <int J>
OC_INLINE vi broadcast_part(vi x, const void* p) {
#if defined(OC_AVX512)
  const __mmask16 lanes = 0xf << (4 * J);
  OC_READS(p, 4);
  asm("vpbroadcastd %2, %0 %{%1%}" : "+v"(x) : "Yk"(lanes), "m"(*static_cast<const int32_t*>(p)));
  return x;
#elif defined(OC_AVX2)
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_inserti128_si256(x, _mm_set1_epi32(four), J);
#else
  int32_t four;
  std::memcpy(&four, p, 4);
  for (int i = 4 * J; i < 4 * J + 4; i++) x[i] = four;
  return x;
#endif
}

// The same for blocks of 4 outputs, kLanes / 4 of which fill a vector.
template <int M>
void multiply_lanes4(const SparseWeights& w, const uint8_t* x, ptrdiff_t stride, int begin, int end, int32_t* sums,
                     int pitch) {
  constexpr int kBlocks = kLanes / 4, kChains = 2;
  for (int g = begin / 4; g * 4 < end; g++) {
    vi total[kChains * M];
    unroll<kChains * M>([&](auto i) OC_LAMBDA { total[i] = zero(); });
    auto multiply = [&](const int32_t* column, vi b, auto count, vi* to) OC_LAMBDA {
      vi rows[M];
      unroll<M>([&](auto m) OC_LAMBDA { rows[m] = zero(); });
      unroll<count>([&](auto j) OC_LAMBDA {
        const uint8_t* a = x + static_cast<size_t>(column[j]) * 4;
        unroll<M>([&](auto m) OC_LAMBDA { rows[m] = broadcast_part<j>(rows[m], a + m * stride); });
      });
      unroll<M>([&](auto m) OC_LAMBDA { to[m] = dot(to[m], rows[m], b); });
    };
    int i = w.row_start[g];
    const int last = w.row_start[g + 1];
    const uint8_t* values = reinterpret_cast<const uint8_t*>(w.values);
    auto whole = [&](int at, vi* to) OC_LAMBDA {
      multiply(w.column + at, load(values + static_cast<size_t>(at) * 16), Index<kBlocks>{}, to);
    };
    for (; i + kChains * kBlocks <= last; i += kChains * kBlocks)
      unroll<kChains>([&](auto c) OC_LAMBDA { whole(i + c * kBlocks, total + c * M); });
    if (i + kBlocks <= last) whole(i, total), i += kBlocks;
    for (; i < last; i++)
      multiply(w.column + i, load_part(values + static_cast<size_t>(i) * 16, 16), Index<1>{}, total);
    unroll<M>([&](auto m) OC_LAMBDA {
      int32_t lanes[kLanes], *to = sums + static_cast<size_t>(m) * pitch + g * 4 - begin;
      store(lanes, add(total[m], total[M + m]));
      for (int o = 0; o < 4; o++) {
        to[o] = w.initial[g * 4 + o];
        for (int j = 0; j < kBlocks; j++) to[o] += lanes[j * 4 + o];
      }
    });
  }
}

}  // namespace
}  // namespace oc::OC_ISA
