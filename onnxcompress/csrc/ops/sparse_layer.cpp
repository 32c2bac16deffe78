#include "ops/sparse_layer.hpp"

#include <algorithm>
#include <cfloat>

#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

constexpr int64_t kMostK = 65536;  // sums of k products of a byte by a weight fit into 32 bits
constexpr int64_t kMostN = 1 << 30;
constexpr int kScratchTile = 3;  // scratch block of ops/buffer.hpp that holds a tile, after those of LinearScratch

}  // namespace

SparseLayer::SparseLayer(const Info& info, int64_t k, bool dynamic_rows) {
  const Tensor values = info.constant(kValues, kS8, "values"), row_start = info.constant(kRowStart, kI32, "row_start"),
               column = info.constant(kColumn, kI32, "column"), w_scale = info.constant(kWScale, kF32, "w_scale");
  require(values.rank() == 3 && values.dim(2) == 4 &&
              (values.dim(1) == 1 || values.dim(1) == 4 || values.dim(1) == 16),
          "values must be [blocks, 1, 4 or 16, 4]");
  require(k >= 1 && k <= kMostK, "the weights must have 1 to 65536 inputs");
  require(row_start.rank() == 1 && row_start.size() >= 2,
          "row_start must have a number for each row of blocks, and one");
  const int64_t block = values.dim(1), groups = row_start.size() - 1;
  const int64_t n = w_scale.rank() == 0 ? groups * block : w_scale.size();
  require(w_scale.rank() <= 1 && n >= 1 && n <= kMostN && (n + block - 1) / block == groups,
          "w_scale must have 1 or N floats, and row_start a number for each row of blocks, and one");
  // A pointer to look at where there are no blocks, and so no values.
  static const int8_t none[64] = {};
  weights_ = {values.size() ? values.as<int8_t>() : none, row_start.as<int32_t>(), column.as<int32_t>(), nullptr,
              static_cast<int>(n), static_cast<int>(k), static_cast<int>(block)};
  validate_blocks(values, row_start, column);

  const auto x_scale = info.constant(kXScale), x_zero = info.constant(kXZero);
  rows_ = dynamic_rows && !(x_scale && x_scale->size() == 1 && x_zero && x_zero->size() == 1);
  if (!rows_) {
    require(x_scale && x_zero, "x_scale and x_zero_point must be constants");
    x_scale_ = info.scalar(kXScale, "x_scale", 1), x_zero_ = info.zero_point(kXZero, "x_zero_point", 0);
    require(x_scale_ >= FLT_MIN && x_scale_ <= FLT_MAX, "x_scale must be positive");
  }
  const size_t padded = static_cast<size_t>(groups * block + 15) / 16 * 16;
  initial_ = Buffer<int32_t>(padded), weight_sum_ = Buffer<int32_t>(padded);
  for (int64_t g = 0; g < groups; g++)
    for (int32_t i = weights_.row_start[g]; i < weights_.row_start[g + 1]; i++)
      for (int64_t r = 0; r < block; r++) {
        const int inputs = static_cast<int>(std::min<int64_t>(4, k - weights_.column[i] * int64_t{4}));
        for (int j = 0; j < inputs; j++)
          weight_sum_[g * block + r] += weights_.values[(i * block + r) * 4 + j];
      }
  for (size_t c = 0; c < padded; c++) initial_[c] = rows_ ? 0 : -weight_sum_[c] * x_zero_;
  weights_.initial = initial_.data();
  scale_ = per_column(w_scale, n, padded, "w_scale");
  for (int64_t c = 0; c < n; c++) scale_[c] *= x_scale_;
  offset_ = Buffer<float>(padded);
  if (const auto bias = info.constant(kBias)) {
    require(bias->type == kF32 && bias->size() == n, "bias must have N floats");
    std::copy_n(bias->as<float>(), n, offset_.data());
  }
}

void SparseLayer::validate_blocks(const Tensor& values, const Tensor& row_start, const Tensor& column) const {
  const int64_t blocks = values.dim(0), columns = (weights_.k + 3) / 4;
  const int32_t *start = row_start.as<int32_t>(), *at = column.as<int32_t>();
  require(column.rank() == 1 && column.size() == blocks, "column must have a number for each block");
  require(start[0] == 0 && start[row_start.size() - 1] == blocks, "row_start must go from 0 to the number of blocks");
  for (int64_t g = 0; g + 1 < row_start.size(); g++) require(start[g] <= start[g + 1], "row_start must not decrease");
  for (int64_t g = 0; g + 1 < row_start.size(); g++)
    for (int32_t i = start[g]; i < start[g + 1]; i++)
      require(at[i] >= 0 && at[i] < columns && (i == start[g] || at[i - 1] < at[i]),
              "the columns of a row of blocks must increase and lie within the weights");
}

void SparseLayer::quantize(const Info& info, size_t scale_index, size_t table_index) {
  table_ = byte_table(info, table_index);
  inverse_ = Buffer<float>(scale_.size());
  std::fill_n(inverse_.data(), n(), 1.f);
  zero_ = info.zero_point(scale_index + 1, "y_zero_point", 0);
  const auto y_scale = info.constant(scale_index);
  quantized_ = y_scale.has_value();
  if (!quantized_) return;
  inverse_ = inverse_scale(*y_scale, n(), scale_.size(), "y_scale");
  least_scale_ = 1.f / *std::max_element(inverse_.data(), inverse_.data() + n());
}

SparseOutput SparseLayer::output() const {
  SparseOutput y;
  y.scale = scale_.data(), y.offset = offset_.data(), y.inverse = inverse_.data(), y.zero = zero_, y.table = table_;
  y.weight_sum = weight_sum_.data();
  return y;
}

SparseLayer::Cut SparseLayer::cut(int m, bool whole_rows) const {
  constexpr int kLeastColumns = 256, kWantedTasks = 4;
  const int tile = sparse().tile, tiles = (m + tile - 1) / tile;
  const int most_parts = whole_rows ? 1 : std::max(1, n() / kLeastColumns);
  const int parts = std::clamp(kWantedTasks / std::max(tiles, 1), 1, most_parts);
  const int columns = ((n() + parts - 1) / parts + 63) / 64 * 64;
  return {tiles, columns, (n() + columns - 1) / columns};
}

void SparseLayer::multiply(Context& context, const uint8_t* x, ptrdiff_t stride, int m, const SparseOutput& y) const {
  const Cut split = cut(m, y.row_scale);
  const int tile = sparse().tile;
  context.parallel(static_cast<size_t>(split.tiles) * split.across, [&](size_t i) {
    const int row = static_cast<int>(i) / split.across * tile;
    const int column = static_cast<int>(i) % split.across * split.columns;
    multiply_part(x, stride, row, std::min(m, row + tile), column, std::min(n(), column + split.columns), y);
  });
}

void SparseLayer::multiply_part(const uint8_t* x, ptrdiff_t stride, int begin, int end, int column_begin,
                                int column_end, const SparseOutput& y) const {
  sparse().linear(weights_, x, stride, begin, end, column_begin, column_end, y,
                  scratch(kScratchTile, sparse().scratch(n(), weights_.k)));
}

}  // namespace oc
