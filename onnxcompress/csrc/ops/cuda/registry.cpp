#include "ops/cuda/registry.hpp"

#include "ops/registry.hpp"

namespace oc {

#define F(name) OpDefinition name##_on_device();
OC_OPERATORS(F)
#undef F

const std::vector<OpDefinition>& device_registry() {
#define F(name) name##_on_device(),
  static const std::vector<OpDefinition> ops = {OC_OPERATORS(F)};
#undef F
  return ops;
}

}  // namespace oc
