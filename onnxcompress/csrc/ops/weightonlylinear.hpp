// What the kernels of WeightOnlyLinear, on every device, read from its node and from a run.
#pragma once

#include <string>
#include <vector>

#include "ort/op.hpp"

namespace oc {

// Checked when it is made; throws Error. Pointers are to constants of the node.
struct WeightOnlyNode {
  enum In { kX, kW, kWScale, kWZero, kBias, kResidual };

  int bits = 4, n = 0, k = 0;     // k: where pairs of codes do not tell, the larger
  int block = 0, blocks = 1;      // block: 0 for one scale an output
  bool gated = false;
  const uint8_t *codes = nullptr, *zero_point = nullptr;  // null: the middle code
  const float *scale = nullptr, *bias = nullptr;          // null: none
  std::string activation;

  explicit WeightOnlyNode(const Info& info);

  int columns() const { return gated ? n / 2 : n; }
};

// The tensors of a run, checked.
struct WeightOnlyRun {
  Tensor x;
  int m = 0, k = 0;
  std::vector<int64_t> shape;      // of y
  const void* residual = nullptr;  // of the type of x

  WeightOnlyRun(const WeightOnlyNode& node, Context& context);
};

}  // namespace oc
