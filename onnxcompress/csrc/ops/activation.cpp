#include "ops/activation.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/isa.hpp"
#include "ort/op.hpp"

namespace oc {

double gelu(double x) { return x * 0.5 * std::erfc(-x * 0.7071067811865476); }
double gelu_tanh(double x) { return x / (1 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))); }
double silu(double x) { return x / (1 + std::exp(-x)); }

namespace {

// x * (1/2 + t * p(t^2)) with the least maximal error over x; p(bound^2) * bound = 1/2, so that x and 0 are exact
// outside. Fitted by iteratively reweighted least squares (Lawson) in a Chebyshev basis.
struct Fit {
  float error;
  Activation activation;
};
const Fit kGeluFits[] = {
    {4.8e-4f,
     {Activation::kPolynomial6,
      3.65f,
      {0.3965331017971039f, -0.06265749037265778f, 0.00787519570440054f, -0.0006218038033694029f,
       2.7200818294659257e-05f, -4.982895802640996e-07f}}},
    {7.7e-5f,
     {Activation::kPolynomial8,
      4.15f,
      {0.3984939754009247f, -0.06557470560073853f, 0.009323778562247753f, -0.0009572157287038863f,
       6.778052920708433e-05f, -3.1036515792948194e-06f, 8.190901468196898e-08f, -9.398798406223818e-10f}}},
};
const Fit kGeluTanhFits[] = {
    {4.4e-4f,
     {Activation::kPolynomial6,
      3.6f,
      {0.3966588079929352f, -0.06303570419549942f, 0.008054414764046669f, -0.0006530113168992102f,
       2.9523160264943726e-05f, -5.60908176794328e-07f}}},
    {6.8e-5f,
     {Activation::kPolynomial8,
      4.05f,
      {0.39852941036224365f, -0.06594070792198181f, 0.009559971280395985f, -0.0010169331217184663f,
       7.552296301582828e-05f, -3.6518101751426e-06f, 1.0207948974993997e-07f, -1.2418478467779437e-09f}}},
};

// Segments of f up to `last`, and their greatest error.
struct SegmentsFit {
  Segments segments;
  float error = 0;

  SegmentsFit(double (*f)(double), double last) {
    const double width = last / (Segments::kParts - 1);
    segments.last = static_cast<float>(last), segments.per_unit = static_cast<float>(1 / width);
    for (int i = 0; i < Segments::kParts; i++) fit(f, i, std::max(0., (i - 0.5) * width), std::min(last, (i + 0.5) * width));
    for (double x = 0; x < 2 * last; x += width / 64) {
      const float size = static_cast<float>(std::min(x, last));
      const int i = static_cast<int>(std::lround(size * segments.per_unit));
      const float c = segments.c[0][i] + size * (segments.c[1][i] + size * segments.c[2][i]);
      error = std::max(error, static_cast<float>(std::abs(c - f(-x))));
    }
  }

  // Part i: the parabola through c at the Chebyshev nodes of [begin, end]; c(|x|) = f(-|x|).
  void fit(double (*f)(double), int i, double begin, double end) {
    const double middle = (begin + end) / 2, step = (end - begin) / 2 * std::sqrt(0.75);
    const double a = f(-(middle - step)), b = f(-middle), c = f(-(middle + step));
    const double curve = (a - 2 * b + c) / (2 * step * step), slope = (c - a) / (2 * step);
    segments.c[2][i] = static_cast<float>(curve);
    segments.c[1][i] = static_cast<float>(slope - 2 * curve * middle);
    segments.c[0][i] = static_cast<float>(b - slope * middle + curve * middle * middle);
  }
};

const SegmentsFit& gelu_segments() {
  static const SegmentsFit fit(gelu, 4.4);
  return fit;
}
const SegmentsFit& gelu_tanh_segments() {
  static const SegmentsFit fit(gelu_tanh, 4.4);
  return fit;
}
const SegmentsFit& silu_segments() {
  static const SegmentsFit fit(silu, 12.5);
  return fit;
}

constexpr float kPartOfStep = 0.05f;

Activation cheapest(const SegmentsFit& segments, const Fit* fits, int count, const Activation& exact, float step) {
  if (active_isa() >= Isa::kAvx512) {
    Activation found{Activation::kSegments};
    found.segments = &segments.segments;
    return segments.error <= kPartOfStep * step ? found : exact;
  }
  for (int i = 0; i < count; i++)
    if (fits[i].error <= kPartOfStep * step) return fits[i].activation;
  return exact;
}

}  // namespace

Activation make_activation(const std::string& name, float step) {
  if (name.empty()) return {};
  if (name == "relu") return {Activation::kRelu};
  if (name == "gelu") return cheapest(gelu_segments(), kGeluFits, 2, {Activation::kGelu}, step);
  if (name == "gelu_tanh") {
    constexpr float kTwice = 1.5957691216057308f;  // 2 * sqrt(2 / pi): (1 + tanh(u)) / 2 is the sigmoid of 2 u
    const Activation exact{Activation::kSigmoid, 0, {kTwice, kTwice * 0.044715f}};
    return cheapest(gelu_tanh_segments(), kGeluTanhFits, 2, exact, step);
  }
  if (name == "silu") return cheapest(silu_segments(), nullptr, 0, {Activation::kSigmoid, 0, {1, 0}}, step);
  if (name == "hardswish") return {Activation::kHardSwish};
  throw Error("no activation is called '" + name + "'");
}

}  // namespace oc
