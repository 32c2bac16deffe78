// Activation functions on vectors of floats.
#pragma once

#include "cpu/simd.hpp"

namespace oc {

// Which formula, and its constants; ops/activation.cpp chooses them.
struct Activation {
  enum Kind {
    kNone,
    kRelu,
    kPolynomial6,  // x * (1/2 + t * p(t^2)), t = x clamped to [-bound, bound], p of 6 coefficients
    kPolynomial8,  // the same with 8
    kGelu,         // x * Phi(x) to 1e-7 of x
    kSigmoid,      // x / (1 + exp(-(c[0] * x + c[1] * x^3)))
    kHardSwish,    // x * clamp(x / 6 + 1/2, 0, 1)
  };
  Kind kind = kNone;
  float bound = 0;
  float c[8] = {};
};

}  // namespace oc

namespace oc::OC_ISA {
namespace {

template <Activation::Kind kKind>
OC_INLINE vf activate(const Activation& a, vf x) {
  if constexpr (kKind == Activation::kRelu) {
    return max(x, setf(0));
  } else if constexpr (kKind == Activation::kPolynomial6 || kKind == Activation::kPolynomial8) {
    constexpr int kCount = kKind == Activation::kPolynomial6 ? 6 : 8;
    const vf t = min(max(x, setf(-a.bound)), setf(a.bound)), square = mul(t, t);
    vf p = setf(a.c[kCount - 1]);
    unroll<kCount - 1>([&](auto i) OC_LAMBDA { p = fma(p, square, setf(a.c[kCount - 2 - i])); });
    return mul(x, fma(t, p, setf(0.5f)));
  } else if constexpr (kKind == Activation::kGelu) {
    // Abramowitz and Stegun 26.2.17: 1 - Phi(z) = density(z) * p(1 / (1 + 0.2316419 z)) for z >= 0, to 7.5e-8.
    const vf z = max(x, sub(setf(0), x)), t = div(setf(1), fma(z, setf(0.2316419f), setf(1)));
    const vf density = mul(exp2(mul(mul(z, z), setf(-0.72134752f))), setf(0.39894228f));
    vf p = setf(1.330274429f);
    p = fma(p, t, setf(-1.821255978f));
    p = fma(p, t, setf(1.781477937f));
    p = fma(p, t, setf(-0.356563782f));
    p = fma(p, t, setf(0.319381530f));
    const vf tail = mul(mul(z, t), mul(p, density));  // z * (1 - Phi(z)); infinite z: not a number, taken as 0
    return sub(max(x, setf(0)), max(tail, setf(0)));
  } else if constexpr (kKind == Activation::kSigmoid) {
    const vf u = mul(x, fma(mul(x, x), setf(-a.c[1]), setf(-a.c[0])));
    return div(x, add(setf(1), exp(u)));
  } else if constexpr (kKind == Activation::kHardSwish) {
    return mul(x, min(max(fma(x, setf(1.f / 6), setf(0.5f)), setf(0)), setf(1)));
  } else {
    return x;
  }
}

}  // namespace
}  // namespace oc::OC_ISA
