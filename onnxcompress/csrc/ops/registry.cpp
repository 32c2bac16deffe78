#include "ops/registry.hpp"

namespace oc {

const std::vector<OpDefinition>& registry() {
#define F(name) name(),
  static const std::vector<OpDefinition> ops = {OC_OPERATORS(F)};
#undef F
  return ops;
}

}  // namespace oc
