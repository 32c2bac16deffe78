#include "cpu/peak.hpp"

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

alignas(64) int32_t operands[7][kLanes], result[kLanes];

int dots(long rounds) {
  vi sums[12];
  unroll<12>([&](auto i) OC_LAMBDA { sums[i] = zero(); });
  for (long r = 0; r < rounds; r++) {
    asm volatile("" ::"r"(operands) : "memory");  // they may be others now: no product can be kept
    // 12 pairs, no two alike: where a dot takes several instructions, none of them is shared
    vi a[3], b[4];
    unroll<3>([&](auto i) OC_LAMBDA { a[i] = load(operands[i]); });
    unroll<4>([&](auto i) OC_LAMBDA { b[i] = load(operands[3 + i]); });
#if defined(OC_AVX512)
    // Left alone GCC loads them again for each use, and measures loads.
    unroll<3>([&](auto i) OC_LAMBDA { asm volatile("" : "+v"(a[i])); });
    unroll<4>([&](auto i) OC_LAMBDA { asm volatile("" : "+v"(b[i])); });
#endif
    unroll<12>([&](auto i) OC_LAMBDA { sums[i] = dot(sums[i], a[i / 4], b[i % 4]); });
  }
  unroll<12>([&](auto i) OC_LAMBDA { store(result, add(load(result), sums[i])); });
  return 12 * kLanes * 4;
}

}  // namespace

extern const PeakKernels peak = {dots};

}  // namespace oc::OC_ISA
