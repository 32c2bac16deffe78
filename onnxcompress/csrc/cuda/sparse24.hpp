// Linear layers with 2:4 sparse weights: of every 4 consecutive weights of an output at most 2 are not zero, and the
// tensor cores skip the others. Host code may include this.
#pragma once

#include "cuda/linear.hpp"

namespace oc::cuda {

// As linear(), with the same requirements, the same plan and the same scratch; weights are pack_sparse24()'s.
void sparse24(const Linear& layer, void* stream);

}  // namespace oc::cuda
