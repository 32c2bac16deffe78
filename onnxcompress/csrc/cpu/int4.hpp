// Linear layers of unsigned bytes by weights of 4 bits that have a scale for each block along k.
//
// Weights are packed into panels of kPanel vectors of outputs, [panel][block][k / 8][vector][lane][4]: the low halves
// of four bytes are the weights of four k, the high halves those of the next four. Weights are kept as whole numbers of
// [-8, 7]; both halves are brought into the high part of a byte, so that sums come out 16 times as large.
#pragma once

#include "cpu/activation.hpp"
#include "cpu/isa.hpp"

namespace oc {

// scale: [panel][block][output], with the factor 16 taken out. zero_sum: of each output, scale * weight over all k.
struct Int4Weights {
  const uint8_t* data;
  const float *scale, *zero_sum;
  int n, blocks, block;  // block: inputs of a block
};

// result = activation((sum - x_zero * zero_sum) * x_scale + offset) + residual, as floats or as bytes
// saturate(round(result * inverse + zero)); rows of n. With row_scale, every row of x has parameters of its own.
struct Int4Output {
  const float* offset = nullptr;
  float x_scale = 1, x_zero = 0;
  const float* row_scale = nullptr;
  const uint8_t* row_zero = nullptr;
  Activation activation;
  const float* residual = nullptr;
  const float* inverse = nullptr;
  float zero = 0;
  float* floats = nullptr;
  uint8_t* bytes = nullptr;
};

struct Int4Kernels {
  int panel;  // outputs that are packed together
  int lanes;
  // Bytes of the packed weights and number of the packed scales.
  size_t (*packed_bytes)(int n, int blocks, int block);
  // w is [n][k / 2], low half first, 8 standing for 0; w_scale is [n][blocks].
  void (*pack)(const uint8_t* w, const float* w_scale, int n, int blocks, int block, uint8_t* data, float* scale);
  // Rows [begin, end) and outputs [column_begin, column_end), column_begin a multiple of `panel`. Rows of x are
  // `stride` bytes apart; where `block` is no multiple of 8, four bytes after each row are read too.
  void (*multiply)(const Int4Weights& w, const uint8_t* x, ptrdiff_t stride, int begin, int end, int column_begin,
                   int column_end, const Int4Output& y);
};

}  // namespace oc

OC_DECLARE_KERNELS(Int4Kernels, int4)
