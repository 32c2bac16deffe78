#include "cpu/bytes.hpp"

#include "cpu/bytes_vector.hpp"

namespace oc::OC_ISA {
namespace {

void table(const uint8_t* x, const uint8_t* table, uint8_t* y, size_t count) {
  const ByteTable look(table);
  size_t i = 0;
  for (; i + kBytes <= count; i += kBytes) storeb(y + i, look(loadb(x + i)));
  for (; i < count; i++) y[i] = table[x[i]];
}

}  // namespace

extern const ByteKernels bytes = {table};

}  // namespace oc::OC_ISA
