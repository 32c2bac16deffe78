// Dense linear layers on unsigned bytes.
#pragma once

#include "cpu/activation.hpp"
#include "cpu/gemm.hpp"
#include "cpu/isa.hpp"

namespace oc {

// What becomes of the sums of a linear layer. Vectors over columns are padded to whole vectors of lanes.
//
//   value = sum * scale + offset, or with parameters for each row of x
//   value = (sum - row_zero_point * weight_sums) * row_scale * scale + offset
//   result = activation(value) + residual
//   floats = result, or result * inverse
//   bytes = table[saturate(round(result * inverse + zero_point))]
//
// Where bytes are made and the activation is folded(), scale and offset are those of value * inverse + zero_point.
struct LinearOutput {
  const float* scale = nullptr;
  const float* offset = nullptr;
  const float* inverse = nullptr;
  float zero_point = 0;
  Activation activation;
  const int32_t* weight_sums = nullptr;
  const float* row_scale = nullptr;
  const uint8_t* row_zero_point = nullptr;
  const float* residual = nullptr;  // [rows][n]
  const uint8_t* table = nullptr;
  uint8_t* bytes = nullptr;  // [rows][n], one of these two
  float* floats = nullptr;
  int first_row = 0;  // the row of x that is row 0 of `floats`

  // Whether scale and offset of an output of bytes are those of value * inverse + zero_point.
  static bool folded(const Activation& activation) {
    return activation.kind == Activation::kNone || activation.kind == Activation::kRelu;
  }
};

// Rows and columns of a product; column_begin is a multiple of a panel.
struct Span {
  int begin, end, column_begin, column_end;
};

struct LinearKernels {
  // Columns that are packed together; splits of the columns between threads are multiples of it.
  int panel;
  int lanes;
  void (*pack)(const int8_t* w, int n, int segments, int k_in, int k, int8_t* out);
  void (*multiply)(const Rows& x, const PackedWeights& w, const Span& span, const LinearOutput& output);
};

}  // namespace oc

OC_DECLARE_KERNELS(LinearKernels, linear)
