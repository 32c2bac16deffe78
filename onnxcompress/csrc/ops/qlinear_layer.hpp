// The linear layer that begins QLinear and QLinearLayerNorm: constants packed once, activations made ready per run.
#pragma once

#include <algorithm>

#include "cpu/linear.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

// Scratch blocks of ops/buffer.hpp that linear layers use.
enum LinearScratch { kScratchX, kScratchReal, kScratchNorm };

class LinearLayer {
 public:
  // Inputs of every operator that begins with a linear layer.
  enum In { kX, kXScale, kXZero, kW, kWScale, kBias, kNext };

  // x of one run, as the kernels read it: rows of k4 bytes.
  struct Input {
    Rows rows;
    int m;
    const float* row_scale = nullptr;
    const uint8_t* row_zero_point = nullptr;
    std::vector<int64_t> shape;  // of the result
  };

  // Reads and packs the constants; throws Error where they do not fit together.
  explicit LinearLayer(const Info& info);

  // Makes scale and offset such that the value comes out as value * inverse[column] + zero_point.
  void fold(const float* inverse, float zero_point);

  // x of this run; throws Error where its shape or its parameters do not fit. Floats are quantized.
  Input input(Context& context) const;

  // An output with all that this layer and its input say of it.
  LinearOutput output(const Input& x) const;

  // The rows and columns of x * w^T, on the session's threads.
  void multiply(Context& context, const Input& x, const LinearOutput& output) const;

  // Rows [begin, end), all columns, on this thread.
  void multiply_rows(const Input& x, int begin, int end, const LinearOutput& output) const;

  // For each block of rows: multiplies it into floats, in scratch memory unless `floats` [m][n] are wanted, then calls
  // finish(begin, end, floats of row `begin`).
  template <class Finish>
  void for_rows(Context& context, const Input& x, LinearOutput output, float* floats, Finish&& finish) const;

  int n() const { return n_; }
  size_t padded() const { return padded_; }

 private:
  PackedWeights weights() const;

  int n_ = 0, k_ = 0, k4_ = 0;
  size_t padded_ = 0;
  bool rows_ = false;  // x has parameters for each row
  float x_scale_ = 1;
  uint8_t x_zero_ = 0;
  Buffer<int8_t> packed_;
  Buffer<int32_t> initial_, weight_sums_;
  Buffer<float> scale_, offset_;
};

// A floating-point vector of 1 or n values (one: repeated), padded with zeros to `padded`; throws Error naming it.
Buffer<float> per_column(const Tensor& values, int n, size_t padded, const char* name);

// 1 / scale of a constant input of 1 or n values, all of which must be positive; throws Error naming it.
Buffer<float> inverse_scale(const Tensor& scale, int n, size_t padded, const char* name);

// A residual of this shape; throws Error where it is not float or has another shape.
const float* residual_input(Context& context, size_t index, const std::vector<int64_t>& shape);

// A constant table of 256 bytes, or null.
const uint8_t* byte_table(const Info& info, size_t index);

template <class Finish>
void LinearLayer::for_rows(Context& context, const Input& x, LinearOutput output, float* floats,
                           Finish&& finish) const {
  constexpr int64_t kWholeBytes = 512 << 10;  // what stays in L2 beside a part of the weights
  const int64_t row_bytes = static_cast<int64_t>(n_) * sizeof(float);
  if (x.m * row_bytes <= kWholeBytes) {
    output.floats = floats ? floats : reinterpret_cast<float*>(scratch(kScratchReal, x.m * row_bytes));
    multiply(context, x, output);
    const int step = std::max(8, (x.m + 15) / 16);
    context.parallel((x.m + step - 1) / step, [&](size_t i) {
      const int begin = static_cast<int>(i) * step, end = std::min(x.m, begin + step);
      finish(begin, end, output.floats + static_cast<ptrdiff_t>(begin) * n_);
    });
    return;
  }
  // Blocks of about equal size, for a last one of few rows would read all weights for them, and an even number of them,
  // for two threads or four.
  const int most = static_cast<int>(std::clamp<int64_t>(kWholeBytes / 2 / row_bytes, 6, 96));
  const int about = std::max(1, (x.m + most / 2) / most), blocks = about == 1 ? 1 : (about + 1) / 2 * 2;
  const int block = ((x.m + blocks - 1) / blocks + 5) / 6 * 6;
  context.parallel((x.m + block - 1) / block, [&](size_t i) {
    const int begin = static_cast<int>(i) * block, end = std::min(x.m, begin + block);
    LinearOutput mine = output;
    mine.first_row = begin;
    mine.floats = floats ? floats + static_cast<ptrdiff_t>(begin) * n_
                         : reinterpret_cast<float*>(scratch(kScratchReal, block * row_bytes));
    multiply_rows(x, begin, end, mine);
    finish(begin, end, mine.floats);
  });
}

}  // namespace oc
