// Floats to halves, for layers whose kernels take halves. Host code may include this.
#pragma once

#include <cstdint>

namespace oc::cuda {

// y = x, to nearest, ties to even; infinity beyond 65504. Device pointers aligned to 16 bytes.
struct ConvertToHalves {
  const float* x = nullptr;  // [count]
  void* y = nullptr;         // halves [count]
  int64_t count = 0;
};
void convert_to_halves(const ConvertToHalves& arguments, void* stream);

}  // namespace oc::cuda
