// Linear layers and convolutions whose weights are blocks of 1, 4 or 16 outputs by 4 inputs, most of them absent.
#pragma once

#include "cpu/activation.hpp"
#include "cpu/isa.hpp"
#include "cpu/sparse_words.hpp"

namespace oc {

// Present blocks of the weights [n][k], as the model holds them: values [blocks][block][4], column counts fours of k.
// `initial` is what the sums of an output start from (-zero_point * sum of its weights), padded to a multiple of 16.
struct SparseWeights {
  const int8_t* values;
  const int32_t *row_start, *column, *initial;
  int n, k, block;
};

// What becomes of the sums: real = activation(sum * scale + offset) + residual. Vectors over outputs are padded with
// zeros to a multiple of 16. With x_scale, every row of x has a scale and a zero point of its own.
struct SparseOutput {
  const float *scale = nullptr, *offset = nullptr;
  Activation activation;
  const WordActivation* words = nullptr;  // the same for bytes, where all outputs have one scale; may be absent
  const float* x_scale = nullptr;
  const uint8_t* x_zero = nullptr;
  const int32_t* weight_sum = nullptr;
  const float* residual = nullptr;
  // real as floats, or table[saturate(round(real * inverse) + zero)] as bytes; rows of n.
  float* floats = nullptr;
  uint8_t* bytes = nullptr;
  const float* inverse = nullptr;
  float zero = 0;
  const uint8_t* table = nullptr;
  // With row_scale, rows of real * inverse become bytes by their own range instead.
  float* row_scale = nullptr;
  uint8_t* row_zero = nullptr;
};

// Input of a convolution, one strip of it with its padding, as [phase][c / 4][position][4]: phase (y % stride,
// x % stride) holds a position for every stride-th pixel, `width` a line. offset[column]: bytes from an output's
// position to what the weights of that column meet.
struct SparseWindow {
  const uint8_t* x;
  const int32_t* offset;
  int width, lines, columns;  // positions in a line; lines and columns of the output in this strip
  int first;                  // row of y of the strip's first output
};

struct SparseKernels {
  int tile;  // rows that are worked on together
  // Bytes of scratch memory that `linear` and `convolve` need, for rows of k bytes (0: convolve).
  size_t (*scratch)(int n, int k);
  // Rows [begin, end) and outputs [column_begin, column_end), multiples of 64, of x * w^T; x has rows of `stride`
  // bytes.
  // All columns where whole rows are needed: for row_scale.
  void (*linear)(const SparseWeights& w, const uint8_t* x, ptrdiff_t stride, int begin, int end, int column_begin,
                 int column_end, const SparseOutput& y, uint8_t* scratch);
  // All outputs of one strip; bytes or floats, without a residual.
  void (*convolve)(const SparseWeights& w, const SparseWindow& x, const SparseOutput& y, uint8_t* scratch);
  // `count` pixels `step` bytes apart, c bytes of each, to lanes [ceil(c / 4)][plane][4].
  void (*to_lanes)(const uint8_t* x, int count, ptrdiff_t step, int c, int plane, uint8_t* y);
};

}  // namespace oc

OC_DECLARE_KERNELS(SparseKernels, sparse)
