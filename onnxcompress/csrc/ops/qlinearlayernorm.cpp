// QLinearLayerNorm: layer normalization of x * w^T + bias + residual, to floats and to bytes.
#include "ops/linear_norm.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

OpDefinition qlinearlayernorm() {
  return {"QLinearLayerNorm",
          {{kAny}, {kF32}, {kU8}, {kS8}, {kF32}, {kF32, optional}, {kF32, optional}, {kF32}, {kF32, optional},
           {kF32, optional}, {kU8, optional}},
          {{kF32, optional}, {kU8, optional}, {kF32, optional}, {kU8, optional}, {kF32, optional}},
          make<LinearNorm<LinearLayer>>};
}

}  // namespace oc
