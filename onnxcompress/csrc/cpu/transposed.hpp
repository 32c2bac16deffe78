// Transposed convolutions of unsigned bytes, channels last: products of a row of pixels by the taps of a window's row.
#pragma once

#include "cpu/gemm.hpp"
#include "cpu/isa.hpp"

namespace oc {

struct TransposedKernels {
  int lanes;
  void (*pack)(const int8_t* w, int n, int segments, int k_in, int k, int8_t* out);
  // All columns of the products of `pixels` rows: [pixels][w.n]. scale and offset are padded to whole vectors.
  // table[saturate(round(sum * scale + offset))]
  void (*to_bytes)(const Rows& x, int pixels, const PackedWeights& w, const float* scale, const float* offset,
                   const uint8_t* table, uint8_t* y);
  // sum * scale + offset
  void (*to_floats)(const Rows& x, int pixels, const PackedWeights& w, const float* scale, const float* offset,
                    float* y);
  void (*to_sums)(const Rows& x, int pixels, const PackedWeights& w, int32_t* y);
  // The same epilogues on sums. scale and offset have `period` values, a multiple of `lanes`, and then repeat.
  void (*sums_to_bytes)(const int32_t* sums, size_t count, const float* scale, const float* offset, size_t period,
                        const uint8_t* table, uint8_t* y);
  void (*sums_to_floats)(const int32_t* sums, size_t count, const float* scale, const float* offset, size_t period,
                         float* y);
  // sums[i] += addend[i]
  void (*accumulate)(const int32_t* addend, int count, int32_t* sums);
};

}  // namespace oc

OC_DECLARE_KERNELS(TransposedKernels, transposed)
