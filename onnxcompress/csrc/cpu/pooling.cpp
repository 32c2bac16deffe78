#include "cpu/pooling.hpp"

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

void weighted_sum(const float* x, ptrdiff_t stride, const float* weight, int64_t length, int channels, float factor,
                  float* y) {
  constexpr int kVectors = 4;
  int c = 0;
  for (; c + kVectors * kLanes <= channels; c += kVectors * kLanes) {
    vf sums[kVectors];
    unroll<kVectors>([&](auto v) OC_LAMBDA { sums[v] = setf(0); });
    for (int64_t s = 0; s < length; s++) {
      const vf w = setf(weight[s]);
      unroll<kVectors>([&](auto v) OC_LAMBDA { sums[v] = fma(loadf(x + s * stride + c + v * kLanes), w, sums[v]); });
    }
    unroll<kVectors>([&](auto v) OC_LAMBDA { storef(y + c + v * kLanes, mul(sums[v], setf(factor))); });
  }
  for (; c < channels; c += kLanes) {
    vf total = setf(0);
    for (int64_t s = 0; s < length; s++) total = fma(loadf(x + s * stride + c, channels - c), setf(weight[s]), total);
    storef(y + c, mul(total, setf(factor)), channels - c);
  }
}

void normalize(float* y, int channels, float epsilon) {
  vf squares = setf(0);
  for (int c = 0; c < channels; c += kLanes) {
    const vf x = loadf(y + c, channels - c);
    squares = fma(x, x, squares);
  }
  const float norm = __builtin_sqrtf(sum(squares));
  const vf factor = setf(1.f / (norm > epsilon ? norm : norm <= epsilon ? epsilon : norm));  // not-a-number stays one
  for (int c = 0; c < channels; c += kLanes)
    storef(y + c, mul(loadf(y + c, channels - c), factor), channels - c);
}

}  // namespace

extern const PoolingKernels pooling = {weighted_sum, normalize};

}  // namespace oc::OC_ISA
