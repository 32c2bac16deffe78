#include "ops/qlinear_layer.hpp"

#include <cfloat>
#include <climits>
#include <cmath>

#include "cpu/quantize.hpp"
#include "ops/rounding.hpp"

namespace oc {

namespace {

constexpr int kMostK = 65536;  // sums of k products of a byte by a weight fit into 32 bits
constexpr int64_t kMostN = 1 << 30;

}  // namespace

Buffer<float> per_column(const Tensor& values, int n, size_t padded, const char* name) {
  if (values.type != kF32 || (values.size() != 1 && values.size() != n))
    throw Error(std::string(name) + " must have 1 or N floats");
  Buffer<float> result(padded);
  for (int c = 0; c < n; c++) result[c] = values.as<float>()[values.size() == 1 ? 0 : c];
  return result;
}

Buffer<float> inverse_scale(const Tensor& scale, int n, size_t padded, const char* name) {
  Buffer<float> result = per_column(scale, n, padded, name);
  for (int c = 0; c < n; c++) {
    if (!(result[c] >= FLT_MIN && result[c] <= FLT_MAX)) throw Error(std::string(name) + " must be positive");
    result[c] = 1.f / result[c];
  }
  return result;
}

const float* residual_input(Context& context, size_t index, const std::vector<int64_t>& shape) {
  if (!context.has(index)) return nullptr;
  const Tensor residual = context.input(index);
  require(residual.type == kF32, "residual must be float");
  require(residual.shape == shape, "residual has not the shape of the result");
  return residual.as<float>();
}

const uint8_t* byte_table(const Info& info, size_t index) {
  const auto table = info.constant(index);
  if (!table) return nullptr;
  require(table->type == kU8 && table->size() == 256, "table must have 256 bytes");
  return table->as<uint8_t>();
}

LinearLayer::LinearLayer(const Info& info) {
  const Tensor w = info.constant(kW, kS8, "w");
  require(w.rank() == 2 && w.size() > 0, "w must be [N, K]");
  require(w.dim(0) <= kMostN && w.dim(1) <= kMostK, "w is too large");
  n_ = static_cast<int>(w.dim(0)), k_ = static_cast<int>(w.dim(1)), k4_ = round_up(k_, 4);
  const auto& kernels = linear();
  padded_ = static_cast<size_t>(round_up(n_, kernels.panel));
  packed_ = Buffer<int8_t>(padded_ * k4_);
  kernels.pack(w.as<int8_t>(), n_, 1, k_, k4_, packed_.data());

  const auto x_scale = info.constant(kXScale), x_zero = info.constant(kXZero);
  rows_ = !(x_scale && x_scale->size() == 1 && x_zero && x_zero->size() == 1);
  if (!rows_) {
    x_scale_ = info.scalar(kXScale, "x_scale", 1), x_zero_ = info.zero_point(kXZero, "x_zero_point", 0);
    require(x_scale_ >= FLT_MIN && x_scale_ <= FLT_MAX, "x_scale must be positive");
  }
  initial_ = Buffer<int32_t>(padded_), weight_sums_ = Buffer<int32_t>(padded_);
  for (int c = 0; c < n_; c++) {
    int32_t sum = 0;
    for (int i = 0; i < k_; i++) sum += w.as<int8_t>()[static_cast<size_t>(c) * k_ + i];
    weight_sums_[c] = sum, initial_[c] = rows_ ? 0 : -sum * x_zero_;
  }
  scale_ = per_column(info.constant(kWScale, kF32, "w_scale"), n_, padded_, "w_scale");
  for (int c = 0; c < n_; c++) scale_[c] *= x_scale_;
  offset_ = Buffer<float>(padded_);
  if (const auto bias = info.constant(kBias)) {
    require(bias->type == kF32 && bias->size() == n_, "bias must have N floats");
    std::copy_n(bias->as<float>(), n_, offset_.data());
  }
}

void LinearLayer::fold(const float* inverse, float zero_point) {
  for (int c = 0; c < n_; c++) scale_[c] *= inverse[c], offset_[c] = offset_[c] * inverse[c] + zero_point;
}

LinearLayer::Input LinearLayer::input(Context& context) const {
  const Tensor x = context.input(kX);
  require(x.type == kU8 || x.type == kF32, "x must be uint8 or float");
  require(x.rank() >= 1 && x.dim(-1) == k_, "the last dimension of x is not that of w");
  require(x.size() / k_ <= INT_MAX - 64, "x has too many rows");
  Input result{{x.as<uint8_t>(), k_, 0}, static_cast<int>(x.size() / k_), nullptr, nullptr, x.shape};
  result.shape.back() = n_;
  if (rows_) {
    require(x.type == kU8, "x_scale and x_zero_point of one value must be constants where x is float");
    const Tensor scale = context.input(kXScale), zero = context.input(kXZero);
    require(scale.type == kF32 && zero.type == kU8 && scale.size() == result.m && zero.size() == result.m,
            "x_scale and x_zero_point must have one value for each row of x");
    result.row_scale = scale.as<float>(), result.row_zero_point = zero.as<uint8_t>();
  }
  if (x.type == kU8 && k_ == k4_) return result;
  // Quantized, or copied with padding: the kernels read whole groups of four bytes.
  uint8_t* padded_x = scratch(kScratchX, static_cast<size_t>(result.m) * k4_);
  const int step = std::max(1, (1 << 16) / k4_);
  context.parallel((result.m + step - 1) / step, [&](size_t i) {
    const int begin = static_cast<int>(i) * step, end = std::min(result.m, begin + step);
    uint8_t* to = padded_x + static_cast<size_t>(begin) * k4_;
    const size_t from = static_cast<size_t>(begin) * k_;
    if (x.type == kF32)
      return quantizing().quantize(x.as<float>() + from, end - begin, k_, x_scale_, x_zero_, to, k4_);
    for (int r = 0; r < end - begin; r++, to += k4_) {
      std::memcpy(to, x.as<uint8_t>() + from + static_cast<size_t>(r) * k_, k_);
      std::memset(to + k_, 0, k4_ - k_);
    }
  });
  result.rows = {padded_x, k4_, 0};
  return result;
}

LinearOutput LinearLayer::output(const Input& x) const {
  LinearOutput output;
  output.scale = scale_.data(), output.offset = offset_.data();
  output.weight_sums = weight_sums_.data();
  output.row_scale = x.row_scale, output.row_zero_point = x.row_zero_point;
  return output;
}

PackedWeights LinearLayer::weights() const { return {packed_.data(), initial_.data(), n_, k4_, 1}; }

void LinearLayer::multiply_rows(const Input& x, int begin, int end, const LinearOutput& output) const {
  linear().multiply(x.rows, weights(), {begin, end, 0, n_}, output);
}

void LinearLayer::multiply(Context& context, const Input& x, const LinearOutput& output) const {
  // Columns are split rather than rows where these are few: every thread then streams its own part of the weights.
  constexpr int kMostRows = 192, kMostTasks = 16;
  constexpr double kLeastWork = 2e6;  // multiplications a task, some microseconds
  const int panel = linear().panel, panels = (n_ + panel - 1) / panel;
  const int row_tasks = (x.m + kMostRows - 1) / kMostRows;
  const int rows = row_tasks ? round_up((x.m + row_tasks - 1) / row_tasks, 6) : 1;
  const double work = static_cast<double>(x.m) * n_ * k4_;
  const int wanted = static_cast<int>(std::clamp(work / kLeastWork, 1., 1. * kMostTasks));
  const int column_tasks = std::clamp(row_tasks ? (wanted + row_tasks - 1) / row_tasks : 0, 1, panels);
  const int columns = (panels + column_tasks - 1) / column_tasks * panel;
  const int across = (n_ + columns - 1) / columns, down = (x.m + rows - 1) / rows;
  context.parallel(static_cast<size_t>(across) * down, [&](size_t i) {
    const int row = static_cast<int>(i) / across * rows, column = static_cast<int>(i) % across * columns;
    linear().multiply(x.rows, weights(),
                      {row, std::min(x.m, row + rows), column, std::min(n_, column + columns)}, output);
  });
}

}  // namespace oc
