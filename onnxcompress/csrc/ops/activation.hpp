// The attribute `activation` of operators.
#pragma once

#include <string>

#include "cpu/activation.hpp"

namespace oc {

// The formula for an activation whose results are then quantized in steps of `step` (0: they are not): as cheap as is
// exact to a small part of a step. Throws Error where there is no activation of this name.
Activation make_activation(const std::string& name, float step);

// The functions themselves.
double gelu(double x);
double gelu_tanh(double x);
double silu(double x);

}  // namespace oc
