// The operators of the library.
#pragma once

#include <vector>

#include "ort/op.hpp"

namespace oc {

// All of them, in a fixed order.
const std::vector<OpDefinition>& registry();

}  // namespace oc
