// QLinear4: activation(x * w^T + bias) + residual, on quantized activations and weights of 4 bits.
#include <algorithm>
#include <cfloat>
#include <climits>

#include "cpu/int4.hpp"
#include "cpu/quantize.hpp"
#include "ops/activation.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW, kWScale, kBias, kResidual, kYScale, kYZero };

struct QLinear4 : Kernel {
  int n = 0, k = 0, block = 0, stride = 0;
  bool rows = false, quantized = false;
  Int4Output output;
  Buffer<uint8_t> packed;
  Buffer<float> scale, zero_sum, offset, inverse;

  explicit QLinear4(const Info& info) {
    const Tensor w = info.constant(kW, kU8, "w"), w_scale = info.constant(kWScale, kF32, "w_scale");
    const int64_t size = info.integer("block_size", 32);
    constexpr int64_t kMostK = 1 << 20, kMostN = 1 << 30, kMostBlock = 65536;
    require(w.rank() == 2 && w.size() > 0 && w.dim(0) <= kMostN && w.dim(1) <= kMostK / 2, "w must be [N, K / 2]");
    require(size >= 32 && size % 4 == 0 && size <= kMostBlock && w.dim(1) * 2 % size == 0,
            "block_size must be a multiple of 4 from 32 on that divides K");
    n = static_cast<int>(w.dim(0)), k = static_cast<int>(w.dim(1) * 2), block = static_cast<int>(size);
    const int blocks = k / block;
    require(w_scale.rank() == 2 && w_scale.dim(0) == n && w_scale.dim(1) == blocks,
            "w_scale must be [N, K / block_size]");
    stride = block % 8 ? k + 4 : k;  // the kernel then reads beyond the last block

    const auto& kernels = int4();
    const size_t padded = (static_cast<size_t>(n) + kernels.panel - 1) / kernels.panel * kernels.panel;
    packed = Buffer<uint8_t>(kernels.packed_bytes(n, blocks, block)), scale = Buffer<float>(padded * blocks);
    kernels.pack(w.as<uint8_t>(), w_scale.as<float>(), n, blocks, block, packed.data(), scale.data());
    zero_sum = Buffer<float>(padded), offset = Buffer<float>(padded);
    for (int c = 0; c < n; c++) zero_sum[c] = sum_of_weights(w, w_scale, c, blocks);
    if (const auto bias = info.constant(kBias)) {
      require(bias->type == kF32 && bias->size() == n, "bias must have N floats");
      std::copy_n(bias->as<float>(), n, offset.data());
    }

    const auto x_scale = info.constant(kXScale), x_zero = info.constant(kXZero);
    rows = !(x_scale && x_scale->size() == 1 && x_zero && x_zero->size() == 1);
    if (!rows) {
      output.x_scale = info.scalar(kXScale, "x_scale", 1), output.x_zero = info.zero_point(kXZero, "x_zero_point", 0);
      require(output.x_scale >= FLT_MIN && output.x_scale <= FLT_MAX, "x_scale must be positive");
    }
    float least_scale = 0;
    if (const auto y_scale = info.constant(kYScale)) {
      quantized = true;
      inverse = inverse_scale(*y_scale, n, padded, "y_scale");
      least_scale = 1.f / *std::max_element(inverse.data(), inverse.data() + n);
    }
    output.activation = make_activation(info.text("activation", ""), least_scale);
    output.offset = offset.data(), output.inverse = inverse.data();
    output.zero = info.zero_point(kYZero, "y_zero_point", 0);
  }

  float sum_of_weights(const Tensor& w, const Tensor& w_scale, int output_index, int blocks) const {
    const uint8_t* row = w.as<uint8_t>() + static_cast<size_t>(output_index) * (k / 2);
    double total = 0;
    for (int b = 0; b < blocks; b++) {
      int sum = -8 * block;
      for (int i = 0; i < block / 2; i++) sum += (*row & 15) + (*row >> 4), row++;
      total += static_cast<double>(w_scale.as<float>()[static_cast<size_t>(output_index) * blocks + b]) * sum;
    }
    return static_cast<float>(total);
  }

  void compute(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.type == kU8 || x.type == kF32, "x must be uint8 or float");
    require(x.rank() >= 1 && x.dim(-1) == k, "the last dimension of x is not that of w");
    require(x.size() / k <= INT_MAX - 64, "x has too many rows");
    const int m = static_cast<int>(x.size() / k);
    std::vector<int64_t> shape = x.shape;
    shape.back() = n;
    Int4Output y = output;
    y.residual = residual_input(context, kResidual, shape);
    if (rows) {
      require(x.type == kU8, "x_scale and x_zero_point of one value must be constants where x is float");
      const Tensor scales = context.input(kXScale), zeros = context.input(kXZero);
      require(scales.type == kF32 && zeros.type == kU8 && scales.size() == m && zeros.size() == m,
              "x_scale and x_zero_point must have one value for each row of x");
      y.row_scale = scales.as<float>(), y.row_zero = zeros.as<uint8_t>();
    }
    y.bytes = context.output(0, shape, kU8).as<uint8_t>(), y.floats = context.output(1, shape, kF32).as<float>();
    if (m == 0) return;
    require(quantized ? y.bytes && !y.floats : y.floats && !y.bytes,
            "the output is y where y_scale is given, and y_float otherwise");
    multiply(context, bytes_of(context, x, m), m, y);
  }

  // Rows of `stride` bytes: x itself, or a copy that is quantized or padded.
  const uint8_t* bytes_of(Context& context, const Tensor& x, int m) const {
    if (x.type == kU8 && stride == k) return x.as<uint8_t>();
    uint8_t* copy = scratch(kScratchX, static_cast<size_t>(m) * stride);
    const int step = std::max(1, (1 << 16) / k);
    context.parallel((static_cast<size_t>(m) + step - 1) / step, [&](size_t i) {
      const int64_t begin = static_cast<int64_t>(i) * step, end = std::min<int64_t>(m, begin + step);
      if (x.type == kF32)
        return quantizing().quantize(x.as<float>() + begin * k, static_cast<int>(end - begin), k, output.x_scale,
                                     output.x_zero, copy + begin * stride, stride);
      for (int64_t r = begin; r < end; r++) {
        std::memcpy(copy + r * stride, x.as<uint8_t>() + r * k, k);
        std::memset(copy + r * stride + k, 0, stride - k);
      }
    });
    return copy;
  }

  void multiply(Context& context, const uint8_t* x, int m, const Int4Output& y) const {
    constexpr int kRows = 96;               // whose bytes stay in L2
    constexpr double kLeastWork = 1 << 20;  // multiplications a task, some microseconds
    const Int4Weights weights{packed.data(), scale.data(), zero_sum.data(), n, k / block, block};
    const int panel = int4().panel, panels = (n + panel - 1) / panel, down = (m + kRows - 1) / kRows;
    const double work = static_cast<double>(std::min(m, kRows)) * panel * k;
    const int together = std::clamp(static_cast<int>(kLeastWork / work), 1, panels) * panel;
    const int across = (n + together - 1) / together;
    context.parallel(static_cast<size_t>(across) * down, [&](size_t i) {
      const int row = static_cast<int>(i) / across * kRows, column = static_cast<int>(i) % across * together;
      int4().multiply(weights, x, stride, row, std::min(m, row + kRows), column, std::min(n, column + together), y);
    });
  }
};

}  // namespace

OpDefinition qlinear4() {
  return {"QLinear4",
          {{kAny}, {kF32}, {kU8}, {kU8}, {kF32}, {kF32, optional}, {kF32, optional}, {kF32, optional}, {kU8, optional}},
          {{kU8, optional}, {kF32, optional}},
          make<QLinear4>};
}

}  // namespace oc
