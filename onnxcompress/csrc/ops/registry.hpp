// The operators of the library.
#pragma once

#include <vector>

#include "ort/op.hpp"

namespace oc {

// F(name): each is defined in ops/<name>.cpp, and for devices in ops/cuda/<name>.cpp; one of another element type, with
// its sibling.
#define OC_OPERATORS(F)     \
  F(dequantizenchw)         \
  F(embedlayernorm)         \
  F(meanpool)               \
  F(qattention)             \
  F(qconcat)                \
  F(qconv)                  \
  F(qconvtranspose)         \
  F(qelementwise)           \
  F(qlayernorm)             \
  F(qlinear)                \
  F(qlinear4)               \
  F(qlinearlayernorm)       \
  F(qpool)                  \
  F(qresize)                \
  F(qsparseconv)            \
  F(qsparselinear)          \
  F(qsparselinearlayernorm) \
  F(qsqueezeexcite)         \
  F(qtable)                 \
  F(quantizenhwc)           \
  F(weightonlylinear)       \
  F(weightonlylinear_half)

#define F(name) OpDefinition name();
OC_OPERATORS(F)
#undef F

// All of them, in a fixed order.
const std::vector<OpDefinition>& registry();

}  // namespace oc
