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

}  // namespace

extern const QuantizeKernels quantizing = {quantize, quantize_rows_by_range};

}  // namespace oc::OC_ISA
