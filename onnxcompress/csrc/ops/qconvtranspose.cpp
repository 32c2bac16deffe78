// QConvTranspose: y = table[quantize(transposed convolution)], on quantized images with channels last.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "cpu/transposed.hpp"
#include "ops/buffer.hpp"
#include "ops/rounding.hpp"
#include "ops/tasks.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

enum In { kX, kXScale, kXZero, kW, kWScale, kBias, kYScale, kYZero, kTable };
enum Slot { kInput, kProducts, kLine };

constexpr int64_t kMostSize = 1 << 24;  // of a dimension, so that a row's bytes can be counted in ints
constexpr int64_t kMostProducts = 1 << 26;  // of one row of pixels by one row of taps

// Sizes along one axis.
struct Axis {
  int64_t kernel, stride, before, after, extra;

  int64_t out(int64_t in) const { return in == 0 ? 0 : (in - 1) * stride + kernel - before - after + extra; }
  // Windows neither overlap, nor leave gaps, nor are cut.
  bool tiles() const { return kernel == stride && before == 0 && after == 0 && extra == 0; }
};

// Taps that are multiplied in one go: [n][C] weights, of which every output value is sum * scale + offset.
struct Taps {
  Buffer<int8_t> packed;
  Buffer<int32_t> initial;
  int n = 0;
};

class QConvTranspose : public Kernel {
 public:
  explicit QConvTranspose(const Info& info) : kernels_(transposed()) {
    const Tensor w = info.constant(kW, kS8, "w");
    require(w.rank() == 4 && w.size() > 0, "w must be [M, kh, kw, C]");
    m_ = w.dim(0), c_ = w.dim(3), c4_ = ceil_divide(c_, 4) * 4;
    require(c_ < 65536, "w has too many channels");  // or sums could leave int32
    const auto strides = list(info, "strides", {1, 1}, 1, kMostSize);
    const auto pads = list(info, "pads", {0, 0, 0, 0}, 0, kMostSize);
    const auto extra = list(info, "output_padding", {0, 0}, 0, kMostSize);
    require(extra[0] < strides[0] && extra[1] < strides[1], "output_padding must be less than strides");
    rows_ = {w.dim(1), strides[0], pads[0], pads[2], extra[0]};
    columns_ = {w.dim(2), strides[1], pads[1], pads[3], extra[1]};
    require(w.size() / c_ < kMostSize, "w has too many taps");
    require(m_ <= 65536 && w.dim(1) <= 4096, "w has too many outputs, or too high a window");
    const std::string layout = info.text("y_layout", "NHWC");
    require(layout == "NHWC" || layout == "NCHW", "y_layout must be NHWC or NCHW");
    to_planes_ = layout == "NCHW";
    x_zero_ = info.zero_point(kXZero, "x_zero_point", 0);
    read_scales(info);
    tiles_ = rows_.tiles() && columns_.tiles();
    const int row = static_cast<int>(columns_.kernel * m_);
    together_ = tiles_ && row < kernels_.lanes;  // too few columns to fill vectors: all rows of taps in one product
    const int sets = together_ ? 1 : static_cast<int>(rows_.kernel);
    for (int i = 0; i < sets; i++) sets_.push_back(make_taps(w, i, together_ ? static_cast<int>(rows_.kernel) : 1));
    repeat_scales(tiles_ ? sets_[0].n : kernels_.lanes * m_);
  }

  void compute(Context& context) override {
    const Tensor x = context.input(kX);
    require(x.rank() == 4 && x.type == kU8, "x must be uint8 in NHWC");
    require(x.dim(3) == c_, "the channels of x are not those of w");
    if (!checked_) {  // which inputs are given is the same in every run
      for (size_t i = kBias; i <= kTable; i++)
        require(context.has(i) == constant_[i], "only x may be computed at run time");
      checked_ = true;
    }
    Run run{x.as<uint8_t>(), x.dim(0), x.dim(1), x.dim(2), rows_.out(x.dim(1)), columns_.out(x.dim(2)), nullptr,
            nullptr};
    require(run.height < kMostSize && run.width < kMostSize, "the image is too large");
    require(run.out_height >= 0 && run.out_width >= 0, "pads are larger than the result");
    require(run.out_width * m_ < (int64_t{1} << 31) && run.width * columns_.kernel * m_ <= kMostProducts,
            "the image is too wide");
    const bool planes = to_planes_ && !to_bytes_;
    std::vector<int64_t> shape = {run.images, run.out_height, run.out_width, m_};
    if (planes) shape = {run.images, m_, run.out_height, run.out_width};
    const Tensor y = context.output(0, shape, kU8), y_float = context.output(1, shape, kF32);
    run.y = y.as<uint8_t>(), run.y_float = y_float.as<float>();
    if (y.size() == 0) return;
    require(to_bytes_ ? run.y && !run.y_float : run.y_float && !run.y,
            "a node with y_scale gives y, and one without gives y_float");
    const int64_t lines = tiles_ ? run.height : run.out_height;
    const double line_ns = run.width * c4_ * m_ * columns_.kernel * (tiles_ ? rows_.kernel : 1) / 200. + 100;
    const double wanted = task_count(run.images * lines * line_ns) / run.images;
    const int64_t piece = std::clamp<int64_t>(std::lround(lines / wanted), 1, lines);
    const int64_t pieces = ceil_divide(lines, piece);
    context.parallel(run.images * pieces, [&](size_t i) {
      const int64_t image = i / pieces, begin = i % pieces * piece, end = std::min(lines, begin + piece);
      for (int64_t line = begin; line < end; line++) tiles_ ? tile_line(run, image, line) : sum_line(run, image, line);
    });
  }

 private:
  struct Run {
    const uint8_t* x;
    int64_t images, height, width, out_height, out_width;
    uint8_t* y;
    float* y_float;
  };

  static std::vector<int64_t> list(const Info& info, const char* name, std::initializer_list<int64_t> fallback,
                                   int64_t least, int64_t limit) {
    const auto values = info.integers(name, fallback);
    require(values.size() == fallback.size(), "strides, pads and output_padding must have 2, 4 and 2 values");
    for (int64_t v : values) require(v >= least && v < limit, "strides, pads or output_padding are out of range");
    return values;
  }

  void read_scales(const Info& info) {
    for (size_t i = kBias; i <= kTable; i++) constant_[i] = info.constant(i).has_value();
    const float x_scale = info.scalar(kXScale, "x_scale", 1), y_scale = info.scalar(kYScale, "y_scale", 1);
    const float y_zero = info.zero_point(kYZero, "y_zero_point", 0);
    require(x_scale > 0 && y_scale > 0, "scales must be positive");
    to_bytes_ = constant_[kYScale];
    const Tensor w_scale = info.constant(kWScale, kF32, "w_scale");
    require(w_scale.size() == 1 || w_scale.size() == m_, "w_scale must have 1 or M values");
    const auto bias = info.constant(kBias);
    require(!bias || (bias->type == kF32 && bias->size() == m_), "bias must have M floats");
    table_ = info.constant(kTable);
    require(!table_ || (table_->type == kU8 && table_->size() == 256), "table must have 256 bytes");
    require(!table_ || to_bytes_, "a table needs y_scale");
    scale_ = Buffer<float>(m_), offset_ = Buffer<float>(m_);
    for (int64_t m = 0; m < m_; m++) {
      scale_[m] = x_scale * w_scale.as<float>()[w_scale.size() == 1 ? 0 : m] / y_scale;
      offset_[m] = (bias ? bias->as<float>()[m] : 0.f) / y_scale + (to_bytes_ ? y_zero : 0.f);
    }
  }

  // The scales of one output value after another, padded to whole vectors.
  void repeat_scales(int64_t count) {
    period_ = ceil_divide(count, kernels_.lanes) * kernels_.lanes;
    Buffer<float> scale(period_), offset(period_);
    for (int64_t i = 0; i < count; i++) scale[i] = scale_[i % m_], offset[i] = offset_[i % m_];
    scale_ = std::move(scale), offset_ = std::move(offset);
  }

  // Rows [ky, ky + count) of the window: columns [ky][kx][M].
  Taps make_taps(const Tensor& w, int ky, int count) const {
    const int64_t kw = columns_.kernel;
    Taps taps;
    taps.n = static_cast<int>(count * kw * m_);
    const int64_t padded = ceil_divide(taps.n, kernels_.lanes) * kernels_.lanes;
    Buffer<int8_t> ordered(taps.n * c_);
    taps.initial = Buffer<int32_t>(padded), taps.packed = Buffer<int8_t>(padded * c4_);
    for (int64_t i = 0; i < taps.n; i++) {
      const int64_t tap = i / m_, m = i % m_;
      const int8_t* from = w.as<int8_t>() + ((m * rows_.kernel + ky + tap / kw) * kw + tap % kw) * c_;
      std::memcpy(ordered.data() + i * c_, from, c_);
      int32_t sum = 0;
      for (int64_t c = 0; c < c_; c++) sum += from[c];
      taps.initial[i] = -sum * x_zero_;
    }
    kernels_.pack(ordered.data(), taps.n, 1, static_cast<int>(c_), static_cast<int>(c4_), taps.packed.data());
    return taps;
  }

  PackedWeights weights(int64_t set) const {
    const Taps& taps = sets_[set];
    return {taps.packed.data(), taps.initial.data(), taps.n, static_cast<int>(c4_), 1};
  }

  // A line of the input, in place or with its channels padded to a multiple of 4.
  Rows input(const Run& run, int64_t image, int64_t line) const {
    const uint8_t* from = run.x + (image * run.height + line) * run.width * c_;
    if (c4_ == c_) return {from, c_, 0};
    uint8_t* to = scratch(kInput, run.width * c4_);
    for (int64_t i = 0; i < run.width; i++) std::memcpy(to + i * c4_, from + i * c_, c_);
    return {to, c4_, 0};
  }

  const uint8_t* table() const { return table_ ? table_->as<uint8_t>() : nullptr; }

  template <class T>
  void multiply(const Rows& x, int64_t pixels, int64_t set, T* y) const {
    if constexpr (std::is_same_v<T, uint8_t>)
      kernels_.to_bytes(x, static_cast<int>(pixels), weights(set), scale_.data(), offset_.data(), table(), y);
    else kernels_.to_floats(x, static_cast<int>(pixels), weights(set), scale_.data(), offset_.data(), y);
  }

  // Where windows tile the output, an input line makes whole output lines by itself.
  void tile_line(const Run& run, int64_t image, int64_t line) const {
    const Rows x = input(run, image, line);
    if (to_bytes_) tile_line(run, x, image, line, run.y);
    else tile_line(run, x, image, line, run.y_float);
  }

  template <class T>
  void tile_line(const Run& run, const Rows& x, int64_t image, int64_t line, T* y) const {
    const int64_t length = run.out_width * m_;
    const bool planes = to_planes_ && !to_bytes_ && m_ > 1;
    T* const first = y + (image * run.out_height + line * rows_.kernel) * length;
    if (!together_ && !planes) {
      for (int64_t ky = 0; ky < rows_.kernel; ky++) multiply(x, run.width, ky, first + ky * length);
      return;
    }
    T* products = reinterpret_cast<T*>(scratch(kProducts, run.width * sets_[0].n * sizeof(T)));
    T* whole = planes ? reinterpret_cast<T*>(scratch(kLine, rows_.kernel * length * sizeof(T))) : first;
    if (together_) {
      multiply(x, run.width, 0, products);
      spread(products, run.width, whole, length);
    } else {
      for (int64_t ky = 0; ky < rows_.kernel; ky++) multiply(x, run.width, ky, whole + ky * length);
    }
    if (planes)
      for (int64_t ky = 0; ky < rows_.kernel; ky++)
        store_planes(run, whole + ky * length, image, line * rows_.kernel + ky, y);
  }

  // [pixel][ky][kx][M] to [ky][pixel][kx][M].
  template <class T>
  void spread(const T* products, int64_t pixels, T* y, int64_t length) const {
    const int64_t piece = columns_.kernel * m_, kh = rows_.kernel;
    auto copy = [&](auto size) {
      const size_t bytes = size ? size : piece * sizeof(T);
      for (int64_t ky = 0; ky < kh; ky++) {
        const T* from = products + ky * piece;
        T* to = y + ky * length;
        for (int64_t i = 0; i < pixels; i++, from += kh * piece, to += piece) std::memcpy(to, from, bytes);
      }
    };
    if (piece == 2) copy(std::integral_constant<size_t, 2 * sizeof(T)>{});
    else copy(std::integral_constant<size_t, 0>{});
  }

  template <class T>
  void store_planes(const Run& run, const T* line, int64_t image, int64_t row, T* y) const {
    for (int64_t m = 0; m < m_; m++) {
      T* to = y + ((image * m_ + m) * run.out_height + row) * run.out_width;
      for (int64_t i = 0; i < run.out_width; i++) to[i] = line[i * m_ + m];
    }
  }

  // Any geometry: the sum of the products that fall on one output line.
  void sum_line(const Run& run, int64_t image, int64_t line) const {
    const int64_t length = run.out_width * m_, kw = columns_.kernel, reach = line + rows_.before;
    auto* sums = reinterpret_cast<int32_t*>(scratch(kLine, length * sizeof(int32_t)));
    auto* products = reinterpret_cast<int32_t*>(scratch(kProducts, run.width * kw * m_ * sizeof(int32_t)));
    std::memset(sums, 0, length * sizeof(int32_t));
    for (int64_t ky = reach % rows_.stride; ky < rows_.kernel && ky <= reach; ky += rows_.stride) {
      const int64_t from = (reach - ky) / rows_.stride;
      if (from >= run.height) continue;
      kernels_.to_sums(input(run, image, from), static_cast<int>(run.width), weights(ky), products);
      for (int64_t i = 0; i < run.width; i++) {
        const int64_t left = i * columns_.stride - columns_.before;
        const int64_t begin = std::clamp<int64_t>(-left, 0, kw);
        const int64_t count = std::clamp<int64_t>(run.out_width - left, begin, kw) - begin;
        if (count > 0)
          kernels_.accumulate(products + (i * kw + begin) * m_, static_cast<int>(count * m_),
                              sums + (left + begin) * m_);
      }
    }
    const int64_t at = (image * run.out_height + line) * length;
    if (to_bytes_) {
      kernels_.sums_to_bytes(sums, length, scale_.data(), offset_.data(), period_, table(), run.y + at);
    } else if (to_planes_ && m_ > 1) {
      auto* values = reinterpret_cast<float*>(scratch(kProducts, length * sizeof(float)));
      kernels_.sums_to_floats(sums, length, scale_.data(), offset_.data(), period_, values);
      store_planes(run, values, image, line, run.y_float);
    } else {
      kernels_.sums_to_floats(sums, length, scale_.data(), offset_.data(), period_, run.y_float + at);
    }
  }

  const TransposedKernels& kernels_;
  int64_t m_ = 0, c_ = 0, c4_ = 0;
  Axis rows_{}, columns_{};
  uint8_t x_zero_ = 0;
  bool to_bytes_ = false, to_planes_ = false, tiles_ = false, together_ = false;
  bool constant_[kTable + 1] = {};
  std::atomic<bool> checked_{false};
  int64_t period_ = 0;
  std::vector<Taps> sets_;
  Buffer<float> scale_, offset_;
  std::optional<Tensor> table_;
};

}  // namespace

OpDefinition qconvtranspose() {
  return {"QConvTranspose",
          {{kU8}, {kF32}, {kU8}, {kS8}, {kF32}, {kF32, optional}, {kF32, optional}, {kU8, optional}, {kU8, optional}},
          {{kU8, optional}, {kF32, optional}},
          make<QConvTranspose>};
}

}  // namespace oc
