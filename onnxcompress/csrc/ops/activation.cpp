#include "ops/activation.hpp"

#include "ort/op.hpp"

namespace oc {

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

constexpr float kPartOfStep = 0.05f;

Activation cheapest(const Fit (&fits)[2], const Activation& exact, float step) {
  for (const Fit& fit : fits)
    if (fit.error <= kPartOfStep * step) return fit.activation;
  return exact;
}

}  // namespace

Activation make_activation(const std::string& name, float step) {
  if (name.empty()) return {};
  if (name == "relu") return {Activation::kRelu};
  if (name == "gelu") return cheapest(kGeluFits, {Activation::kGelu}, step);
  if (name == "gelu_tanh") {
    constexpr float kTwice = 1.5957691216057308f;  // 2 * sqrt(2 / pi): (1 + tanh(u)) / 2 is the sigmoid of 2 u
    return cheapest(kGeluTanhFits, {Activation::kSigmoid, 0, {kTwice, kTwice * 0.044715f}}, step);
  }
  if (name == "silu") return {Activation::kSigmoid, 0, {1, 0}};
  if (name == "hardswish") return {Activation::kHardSwish};
  throw Error("no activation is called '" + name + "'");
}

}  // namespace oc
