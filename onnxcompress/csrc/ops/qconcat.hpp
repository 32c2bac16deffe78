// What a QConcat node says of its images, the same for every provider.
#pragma once

#include <vector>

#include "ort/op.hpp"

namespace oc {

struct ConcatNode {
  static constexpr int kTableBytes = 256;

  Tensor tables;  // [images, 256]
  std::vector<int64_t> upsample;
  std::vector<bool> same;  // whether an image's table changes nothing

  // Throws Error where the constants do not fit together.
  explicit ConcatNode(const Info& info) : tables(info.constant(0, kU8, "tables")) {
    const size_t n = info.input_count() - 1;
    require(n >= 1 && tables.rank() == 2 && tables.dim(0) == static_cast<int64_t>(n) && tables.dim(1) == kTableBytes,
            "tables must be [n, 256] for n images");
    upsample = info.integers("upsample", {});
    if (upsample.empty()) upsample.assign(n, 1);
    require(upsample.size() == n, "upsample must have a value for each image");
    for (int64_t u : upsample) require(u >= 1 && u <= 1 << 10, "upsample must be at least 1");
    const auto identity = info.integers("identity", {});
    require(identity.empty() || identity.size() == n, "identity must have a value for each image");
    for (size_t i = 0; i < n; i++) {
      bool unchanged = true;
      for (int q = 0; q < kTableBytes; q++) unchanged = unchanged && table(i)[q] == q;
      require(unchanged || identity.empty() || !identity[i], "identity is given for a table that is none");
      same.push_back(unchanged);
    }
  }

  const uint8_t* table(size_t image) const { return tables.as<uint8_t>() + image * kTableBytes; }
};

}  // namespace oc
