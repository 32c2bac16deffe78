// Activation functions on the device.
#pragma once

#include "cuda/activation.hpp"
#include "cuda/device.hpp"

namespace oc::cuda {

// x / (1 + exp(-u)); 0 where the exponential passes the range of floats.
__device__ __forceinline__ float times_sigmoid(float x, float u) { return __fdividef(x, 1.f + __expf(-u)); }

// The function, to 1e-6 of max(1, |x|).
__device__ __forceinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kRelu:
      return fmaxf(x, 0.f);
    case Activation::kGelu:
      return 0.5f * x * (1.f + erff(x * 0.70710678f));
    case Activation::kGeluTanh:
      // 1/2 (1 + tanh(u)) = sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
      return times_sigmoid(x, x * (1.59576912f + 0.07135482f * x * x));
    case Activation::kSilu:
      return times_sigmoid(x, x);
    case Activation::kHardSwish:
      return x * __saturatef(fmaf(x, 1.f / 6, 0.5f));
    default:
      return x;
  }
}

}  // namespace oc::cuda
