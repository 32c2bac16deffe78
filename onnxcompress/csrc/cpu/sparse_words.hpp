// Activation functions on 16-bit fixed point, for results that become bytes: a third of the work of a polynomial.
#pragma once

#include <cstdint>

namespace oc {

// Functions f with f(x) = max(x, 0) + c(|x|), as GELU, SiLU and HardSwish are. x is in steps of the result, with 7 bits
// of fraction: word = saturate(round(x * 128)). c is interpolated between 64 points that are 2^shift words apart;
// `value` includes the zero point and one half, `slope` is the difference to the next point.
struct WordActivation {
  static constexpr int kPoints = 64, kFraction = 7;
  int16_t value[kPoints], slope[kPoints];
  int shift;
};

}  // namespace oc
