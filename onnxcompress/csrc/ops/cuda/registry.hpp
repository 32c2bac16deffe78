// The operators of the library on CUDA devices.
#pragma once

#include <vector>

#include "ort/op.hpp"

namespace oc {

// All of them, in the order of registry(); in a build for tests, for the CPU's provider.
const std::vector<OpDefinition>& device_registry();

}  // namespace oc
