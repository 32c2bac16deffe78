#include "cpu/quantize.hpp"

#include "cpu/row_quantize.hpp"

namespace oc::OC_ISA {
namespace {

void quantize(const float* x, int rows, int k, float scale, float zero_point, uint8_t* y, ptrdiff_t stride) {
  for (int r = 0; r < rows; r++, x += k, y += stride) {
    quantize_row(x, k, 1.f / scale, zero_point, y, nullptr);
    for (int i = k; i < stride; i++) y[i] = 0;
  }
}

void quantize_rows(const float* x, int rows, int n, uint8_t* y, float* scale, uint8_t* zero_point,
                   const uint8_t* table) {
  for (int r = 0; r < rows; r++, x += n, y += n) quantize_by_range(x, n, y, scale + r, zero_point + r, table);
}

}  // namespace

extern const QuantizeKernels quantizing = {quantize, quantize_rows};

}  // namespace oc::OC_ISA
