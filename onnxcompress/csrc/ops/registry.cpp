#include "ops/registry.hpp"

namespace oc {

// Each is defined in the file of its name.
OpDefinition embedlayernorm();
OpDefinition meanpool();
OpDefinition qattention();
OpDefinition qconv();
OpDefinition qconvtranspose();
OpDefinition qlayernorm();
OpDefinition qlinear();
OpDefinition qlinear4();
OpDefinition qlinearlayernorm();
OpDefinition qsparseconv();
OpDefinition qsparselinear();
OpDefinition qtable();
OpDefinition dequantizenchw();
OpDefinition qconcat();
OpDefinition qelementwise();
OpDefinition qpool();
OpDefinition qresize();
OpDefinition qsqueezeexcite();
OpDefinition quantizenhwc();

const std::vector<OpDefinition>& registry() {
  static const std::vector<OpDefinition> ops = {qconv(), embedlayernorm(), meanpool(), qattention(), qconvtranspose(), qlayernorm(), qlinear(), qlinear4(), qlinearlayernorm(), qsparseconv(), qsparselinear(), qtable(), dequantizenchw(), qconcat(), qelementwise(), qpool(), qresize(), qsqueezeexcite(), quantizenhwc()};
  return ops;
}

}  // namespace oc
