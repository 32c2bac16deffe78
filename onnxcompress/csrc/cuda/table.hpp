// Any element-wise function of bytes, as a table. Host code may include this.
#pragma once

#include <cstdint>

namespace oc::cuda {

constexpr int kTableBytes = 256;

// y = table[x]. Device pointers aligned to 16 bytes.
struct Table {
  const uint8_t* x = nullptr;  // [count]
  uint8_t* y = nullptr;        // [count]
  int64_t count = 0;
  const uint8_t* table = nullptr;  // [256]
};
void apply_table(const Table& arguments, void* stream);

}  // namespace oc::cuda
