// QSparseLinearLayerNorm: QLinearLayerNorm with block-sparse weights.
#include "ops/linear_norm.hpp"
#include "ops/sparse_linear.hpp"

namespace oc {

OpDefinition qsparselinearlayernorm() {
  return {"QSparseLinearLayerNorm",
          {{kAny}, {kF32}, {kU8}, {kS8}, {kI32}, {kI32}, {kF32}, {kF32, optional}, {kF32}, {kF32}, {kF32, optional},
           {kF32, optional}, {kU8, optional}},
          {{kF32, optional}, {kU8, optional}, {kF32, optional}, {kU8, optional}, {kF32, optional}},
          make<LinearNorm<SparseLinear>>};
}

}  // namespace oc
