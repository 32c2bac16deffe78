// Windows over images of unsigned bytes, channels innermost: down the rows first, then along the result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

// The second half: window j of a row begins at x + j * step, and its columns are `channels` apart.
struct PoolColumns {
  int windows, width, channels;
  ptrdiff_t step;
  const uint8_t* table;
};

struct PoolKernels {
  // y[i] = the greatest of x[i], x[i + stride], ..., `rows` of them.
  void (*max_rows)(const uint8_t* x, ptrdiff_t stride, int rows, uint8_t* y, size_t count);
  void (*max_columns)(const PoolColumns& c, const uint8_t* x, uint8_t* y);
  // y[i] = their sum.
  void (*sum_rows)(const uint8_t* x, ptrdiff_t stride, int rows, int32_t* y, size_t count);
  // saturate(round((sum - zero[j]) * scale[j]) + y_zero) of window j, and the table.
  void (*average_columns)(const PoolColumns& c, const int32_t* x, const float* scale, const int32_t* zero, int y_zero,
                          uint8_t* y);
  // sums[c] += the values of channel c in `pixels` pixels, through the table where there is one.
  void (*channel_sums)(const uint8_t* x, size_t pixels, int channels, const uint8_t* table, int32_t* sums);
};

}  // namespace oc

OC_DECLARE_KERNELS(PoolKernels, pool)
