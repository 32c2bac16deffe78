// The two layers of squeeze-and-excitation, from the means of the channels to a factor for each.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

enum class ExciteActivation { kRelu, kSilu, kHardSwish };
enum class ExciteGate { kSigmoid, kHardSigmoid };

// Floats and weights of channels are padded with zeros to `padded`, a multiple of 16.
struct ExciteLayers {
  int channels, padded, hidden;
  const int8_t* w1;  // [hidden][channels]
  const float *w1_scale, *b1;
  const int8_t* w2;  // transposed: [hidden][padded]
  const float *w2_scale, *b2;
  ExciteActivation activation;
  ExciteGate gate;
  float alpha, beta;  // hard sigmoid: max(0, min(1, alpha * x + beta))
};

struct ExciteKernels {
  // gate[c] of the means of `padded` channels; `scratch` is as long as the hidden layer, in whole vectors of 16.
  void (*gates)(const ExciteLayers& layers, const float* mean, float* scratch, float* gate);
};

}  // namespace oc

OC_DECLARE_KERNELS(ExciteKernels, excite)
