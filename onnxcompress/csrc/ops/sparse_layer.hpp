// Block-sparse weights with their scales, bias and output parameters, as QSparseLinear and QSparseConv hold them.
#pragma once

#include "cpu/sparse.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

class SparseLayer {
 public:
  // Inputs of every operator with block-sparse weights.
  enum In { kX, kXScale, kXZero, kValues, kRowStart, kColumn, kWScale, kBias, kNext };

  // Validates the constants for weights of k inputs; throws Error where they do not fit together. `dynamic_rows`: x may
  // have a scale and a zero point for each row.
  SparseLayer(const Info& info, int64_t k, bool dynamic_rows);

  // Adds what the outputs are quantized with: y_scale at `scale_index`, then y_zero_point; `table` at `table_index`.
  void quantize(const Info& info, size_t scale_index, size_t table_index);

  const SparseWeights& weights() const { return weights_; }
  // Everything but where the results go, and the activation.
  SparseOutput output() const;
  // Rows [0, m) of `stride` bytes, on the session's threads; `y` holds where the results go.
  void multiply(Context& context, const uint8_t* x, ptrdiff_t stride, int m, const SparseOutput& y) const;

  int n() const { return weights_.n; }
  bool rows() const { return rows_; }
  bool quantized() const { return quantized_; }
  float x_scale() const { return x_scale_; }
  uint8_t x_zero() const { return x_zero_; }
  float least_scale() const { return least_scale_; }

 protected:
  // How work is cut: every task turns its own rows into lanes, so columns are split only where rows alone would leave
  // threads idle.
  struct Cut {
    int tiles, columns, across;  // of rows; in a part; parts
  };
  Cut cut(int m, bool whole_rows) const;
  // Rows [begin, end) and columns [column_begin, column_end), on this thread.
  void multiply_part(const uint8_t* x, ptrdiff_t stride, int begin, int end, int column_begin, int column_end,
                     const SparseOutput& y) const;

 private:
  void validate_blocks(const Tensor& values, const Tensor& row_start, const Tensor& column) const;

  SparseWeights weights_{};
  bool rows_ = false, quantized_ = false;
  float x_scale_ = 1, zero_ = 0, least_scale_ = 0;
  uint8_t x_zero_ = 0;
  const uint8_t* table_ = nullptr;
  Buffer<int32_t> initial_, weight_sum_;
  Buffer<float> scale_, offset_, inverse_;
};

}  // namespace oc
