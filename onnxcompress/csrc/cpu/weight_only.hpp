// Linear layers of floats by weights of 4 or 8 bits that stay packed in memory; sums are single precision.
//
// Outputs are packed in panels of `panel`, of whole vectors. Where layers are gated, the first half of a panel are the
// gates and the second half the ups of `panel` / 2 columns. Codes of 4 bits lie [panel][k / 8][output][4 bytes]: the
// k-th of eight in bits 4k of a word, as two's complement (code - 8). Codes of 8 bits lie [panel][k][output], as
// code - 128.
#pragma once

#include "cpu/activation.hpp"
#include "cpu/isa.hpp"

namespace oc {

// Weights as models store them: rows of gate and up in turn, where gated.
struct WeightOnlySource {
  int bits = 4, n = 0, k = 0;
  int block = 0, blocks = 1;            // inputs of a block, of which there are ceil(k / block); 0: one, of all
  bool gated = false;
  const uint8_t* codes = nullptr;       // 4 bits: [n][(k + 1) / 2], the first of a pair in the low half; 8: [n][k]
  const float* scale = nullptr;         // [n][blocks]
  const uint8_t* zero_point = nullptr;  // [n][blocks]; null: 8 and 128
  const float* bias = nullptr;          // [n], or null
};

// As packed: each array [panel][block][output], bias [panel][output]. zero_point: less the middle code; null: none.
struct WeightOnlyPacked {
  int bits = 4, k = 0, block = 0, blocks = 1;  // block: a multiple of 8
  bool gated = false;
  const uint8_t* codes = nullptr;
  const float* scale = nullptr;
  const int8_t* zero_point = nullptr;
  const float* bias = nullptr;
};

// Rows of `columns` values; a residual and a result are floats or halves (bits), whichever is not null.
struct WeightOnlyOutput {
  int columns = 0;
  Activation activation;
  const float* residual = nullptr;
  const uint16_t* half_residual = nullptr;
  float* y = nullptr;
  uint16_t* half_y = nullptr;
};

// Rows of x, `stride` floats apart; those from k on, up to a multiple of 8, are zero. sums: of x in each block of each
// row, [row][blocks]; wanted where there are zero points and at most `few_rows` rows, else null.
struct WeightOnlyRows {
  const float* x;
  ptrdiff_t stride;
  int k;
  const float* sums;
};

struct WeightOnlyKernels {
  int panel;     // outputs that are packed together
  int few_rows;  // up to which weights are decoded in registers, for every few rows anew
  size_t (*code_bytes)(int bits, int k, int panels);
  void (*pack)(const WeightOnlySource& source, int panels, uint8_t* codes, float* scale, int8_t* zero_point, float* bias);
  // `stride` floats of a row of k values, zeros at the end: from halves, or from floats.
  void (*widen)(const uint16_t* halves, int k, float* row, ptrdiff_t stride);
  void (*sum_blocks)(const float* row, ptrdiff_t stride, int block, float* sums);
  size_t (*scratch_floats)(int rows);  // that `multiply` needs for so many rows
  // Rows [begin, end) and panels [first, last).
  void (*multiply)(const WeightOnlyPacked& w, const WeightOnlyRows& rows, int begin, int end, int first, int last,
                   const WeightOnlyOutput& y, float* scratch);
};

}  // namespace oc

OC_DECLARE_KERNELS(WeightOnlyKernels, weight_only)
