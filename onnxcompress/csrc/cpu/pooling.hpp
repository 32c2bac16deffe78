// Weighted means over the tokens of a sequence.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

struct PoolingKernels {
  // y[c] = factor * the sum over s of weight[s] * x[s * stride + c], for `channels` channels.
  void (*weighted_sum)(const float* x, ptrdiff_t stride, const float* weight, int64_t length, int channels,
                       float factor, float* y);
  // y /= max(its Euclidean norm, epsilon)
  void (*normalize)(float* y, int channels, float epsilon);
};

}  // namespace oc

OC_DECLARE_KERNELS(PoolingKernels, pooling)
