// Activation functions on vectors of floats.
#pragma once

#include "cpu/simd.hpp"

namespace oc {

// f(x) = max(x, 0) + c(|x|), as GELU and SiLU are: c by a parabola for each part of |x|, c[0] + c[1] |x| + c[2] |x|^2.
// Part i lies about i / per_unit; `last` is the greatest |x| that has one, and stands for all beyond.
struct Segments {
  static constexpr int kParts = 32;
  float c[3][kParts];
  float per_unit, last;
};

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
    kSegments,     // see there; where a table of 32 floats is looked up by an instruction
  };
  Kind kind = kNone;
  float bound = 0;
  float c[8] = {};
  const Segments* segments = nullptr;
};

}  // namespace oc

namespace oc::OC_ISA {
namespace {

// The function on vectors. It holds what it needs, which writing results therefore cannot change.
template <Activation::Kind kKind>
struct Activate {
  Activation a;

  explicit OC_INLINE Activate(const Activation& activation) : a(activation) {}

  OC_INLINE vf operator()(vf x) const {
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
};

#if defined(OC_AVX512)
template <>
struct Activate<Activation::kSegments> {
  vf part[3][2], per_unit, last;

  explicit OC_INLINE Activate(const Activation& activation) {
    const Segments& s = *activation.segments;
    unroll<3>([&](auto i) OC_LAMBDA { part[i][0] = loadf(s.c[i]), part[i][1] = loadf(s.c[i] + kLanes); });
    per_unit = setf(s.per_unit), last = setf(s.last);
  }

  OC_INLINE vf operator()(vf x) const {
    const vf size = min(_mm512_abs_ps(x), last);
    // The sum with 2^23 is rounded to a whole number, whose last bits are the part.
    const vi at = _mm512_castps_si512(fma(size, per_unit, setf(8388608.f)));
    vf c[3];
    unroll<3>([&](auto i) OC_LAMBDA { c[i] = _mm512_permutex2var_ps(part[i][0], at, part[i][1]); });
    return add(max(x, setf(0)), fma(fma(c[2], size, c[1]), size, c[0]));
  }
};
#endif

template <Activation::Kind kKind>
struct KindConstant {
  constexpr operator Activation::Kind() const { return kKind; }
};

// f(activation's kind, as a constant).
template <class F>
OC_INLINE auto with_kind(const Activation& activation, F&& f) {
  switch (activation.kind) {
    case Activation::kRelu: return f(KindConstant<Activation::kRelu>{});
    case Activation::kGelu: return f(KindConstant<Activation::kGelu>{});
    case Activation::kSigmoid: return f(KindConstant<Activation::kSigmoid>{});
    case Activation::kHardSwish: return f(KindConstant<Activation::kHardSwish>{});
#if defined(OC_AVX512)
    case Activation::kSegments: return f(KindConstant<Activation::kSegments>{});
#else
    case Activation::kPolynomial6: return f(KindConstant<Activation::kPolynomial6>{});
    case Activation::kPolynomial8: return f(KindConstant<Activation::kPolynomial8>{});
#endif
    default: return f(KindConstant<Activation::kNone>{});
  }
}

}  // namespace
}  // namespace oc::OC_ISA
