// QSparseConv: a convolution of quantized NHWC images with block-sparse weights.
#include <algorithm>
#include <climits>

#include "ops/sparse_layer.hpp"

namespace oc {

namespace {

enum In { kYScale = SparseLayer::kNext, kYZero, kTable };
constexpr int kScratchKernel = 2, kScratchStrip = 3;  // scratch blocks of ops/buffer.hpp

int64_t inputs_of(const Info& info) {
  const auto kernel = info.integers("kernel_shape", {1, 1});
  const int64_t c = info.integer("in_channels", 0);
  constexpr int64_t kMost = 65536;
  auto within = [](int64_t size) { return size >= 1 && size <= kMost; };
  require(kernel.size() == 2 && within(kernel[0]) && within(kernel[1]) && within(c),
          "kernel_shape must be two positive numbers, and in_channels a positive number");
  return kernel[0] * kernel[1] * c;
}

// One axis of the image.
struct Axis {
  int kernel, stride, dilation, begin, end;  // begin and end: padding

  int output(int64_t size) const {
    const int64_t room = size + begin + end - static_cast<int64_t>(dilation) * (kernel - 1) - 1;
    require(room >= 0, "the kernel is larger than the padded image");
    return static_cast<int>(room / stride + 1);
  }
  bool plain() const { return kernel == 1 && stride == 1; }
  int phases() const { return std::min<int64_t>(stride, static_cast<int64_t>(dilation) * (kernel - 1) + 1); }
  int reach() const { return dilation * (kernel - 1) / stride; }  // positions beyond an output's own
};

struct QSparseConv : Kernel {
  SparseLayer layer;
  Axis vertical, horizontal;
  int c;

  explicit QSparseConv(const Info& info) : layer(info, inputs_of(info), false) {
    layer.quantize(info, kYScale, kTable);
    c = static_cast<int>(info.integer("in_channels", 0));
    const auto kernel = info.integers("kernel_shape", {1, 1}), strides = info.integers("strides", {1, 1}),
               dilations = info.integers("dilations", {1, 1}), pads = info.integers("pads", {0, 0, 0, 0});
    constexpr int64_t kMost = 4096;
    auto within = [](const std::vector<int64_t>& values, size_t count, int64_t low) {
      return values.size() == count &&
             std::all_of(values.begin(), values.end(), [&](int64_t v) { return v >= low && v <= kMost; });
    };
    require(within(strides, 2, 1) && within(dilations, 2, 1) && within(pads, 4, 0),
            "strides and dilations must be two positive numbers, pads four that are not negative");
    auto axis = [&](int i) {
      return Axis{static_cast<int>(kernel[i]), static_cast<int>(strides[i]), static_cast<int>(dilations[i]),
                  static_cast<int>(pads[i]), static_cast<int>(pads[i + 2])};
    };
    vertical = axis(0), horizontal = axis(1);
  }

  void compute(Context& context) override {
    const Tensor x = context.input(SparseLayer::kX);
    require(x.type == kU8 && x.rank() == 4 && x.dim(3) == c, "x must be uint8 [N, H, W, in_channels]");
    require(x.dim(1) < INT_MAX / 2 && x.dim(2) < INT_MAX / 2, "x is too large");
    const std::vector<int64_t> shape = {x.dim(0), vertical.output(x.dim(1)), horizontal.output(x.dim(2)), layer.n()};
    require(shape[0] * shape[1] * shape[2] <= INT_MAX - 64, "x is too large");
    SparseOutput y = layer.output();
    y.bytes = context.output(0, shape, kU8).as<uint8_t>(), y.floats = context.output(1, shape, kF32).as<float>();
    if (shape[0] == 0) return;
    require(layer.quantized() ? y.bytes && !y.floats : y.floats && !y.bytes,
            "the output is y where y_scale is given, and y_float otherwise");
    const bool plain = vertical.plain() && horizontal.plain() && x.dim(1) == shape[1] && x.dim(2) == shape[2];
    if (plain) layer.multiply(context, x.as<uint8_t>(), c, static_cast<int>(shape[0] * shape[1] * shape[2]), y);
    else if (c % 4 == 0) strips(context, x, shape, y);
    else patches(context, x, shape, y);
  }

  // Blocks lie within one pixel each: the image is turned into lanes once, and windows are positions in it.
  void strips(Context& context, const Tensor& x, const std::vector<int64_t>& shape, const SparseOutput& y) const {
    constexpr int64_t kStripBytes = 384 << 10, kMostBytes = 256 << 20;
    constexpr int kLeastLines = 4, kSplits = 4;
    const int rows = static_cast<int>(shape[1]), columns = static_cast<int>(shape[2]);
    const int phases = vertical.phases() * horizontal.phases();
    const int64_t wide = int64_t{columns} + horizontal.reach(), position_bytes = static_cast<int64_t>(phases) * c;
    require(wide <= kMostBytes / position_bytes, "a line of x is too large");
    const int width = static_cast<int>(wide);
    const int64_t line_bytes = width * position_bytes;
    const int fitting = static_cast<int>(std::min<int64_t>(kStripBytes / line_bytes, rows)) - vertical.reach();
    const int lines = std::clamp(std::min(fitting, std::max(kLeastLines, (rows + kSplits - 1) / kSplits)), 1, rows);
    require(line_bytes * (int64_t{lines} + vertical.reach()) <= kMostBytes, "a line of x is too large");
    const int plane = (lines + vertical.reach()) * width;
    const Buffer<int32_t> offset = offsets(width, plane);
    const int across = (rows + lines - 1) / lines;
    // A last tile reads whole vectors beyond the last position.
    const size_t bytes = static_cast<size_t>(plane) * phases * c + static_cast<size_t>(sparse().tile) * 4;
    context.parallel(static_cast<size_t>(shape[0]) * across, [&](size_t i) {
      const int64_t image = i / across;
      const int first = static_cast<int>(i % across) * lines, count = std::min(lines, rows - first);
      uint8_t* strip = scratch(kScratchStrip, bytes);
      fill(x, image, first, count + vertical.reach(), width, plane, strip);
      const SparseWindow window{strip, offset.data(), width, count, columns,
                                static_cast<int>((image * rows + first) * columns)};
      sparse().convolve(layer.weights(), window, y, scratch(kScratchKernel, sparse().scratch(layer.n(), 0)));
    });
  }

  Buffer<int32_t> offsets(int width, int plane) const {
    const int k = layer.weights().k;
    Buffer<int32_t> offset(k / 4);
    for (int q = 0; q < k / 4; q++) {
      const int tap = q * 4 / c, channel = q * 4 % c;
      const int dy = tap / horizontal.kernel * vertical.dilation, dx = tap % horizontal.kernel * horizontal.dilation;
      const int phase = dy % vertical.stride * horizontal.phases() + dx % horizontal.stride;
      offset[q] = ((phase * (c / 4) + channel / 4) * plane + dy / vertical.stride * width + dx / horizontal.stride) * 4;
    }
    return offset;
  }

  // Lines of the strip whose first output line is `first`, by phase, with padding.
  void fill(const Tensor& x, int64_t image, int first, int lines, int width, int plane, uint8_t* strip) const {
    const int height = static_cast<int>(x.dim(1)), across = static_cast<int>(x.dim(2));
    const size_t phase_bytes = static_cast<size_t>(plane) * c;
    const uint8_t* pixels = x.as<uint8_t>() + static_cast<size_t>(image) * height * across * c;
    for (int py = 0; py < vertical.phases(); py++)
      for (int px = 0; px < horizontal.phases(); px++, strip += phase_bytes) {
        // Positions of this phase that lie within the image.
        const int shift = px - horizontal.begin, stride = horizontal.stride;
        const int begin = std::clamp(shift < 0 ? (-shift + stride - 1) / stride : 0, 0, width);
        const int end = std::clamp(across > shift ? (across - shift + stride - 1) / stride : 0, begin, width);
        for (int line = 0; line < lines; line++) {
          const int64_t row = static_cast<int64_t>(first + line) * vertical.stride + py - vertical.begin;
          const bool inside = row >= 0 && row < height;
          uint8_t* to = strip + static_cast<size_t>(line) * width * 4;
          pad(to, plane, 0, inside ? begin : width);
          if (!inside) continue;
          pad(to, plane, end, width);
          if (end > begin)
            sparse().to_lanes(pixels + (row * across + begin * stride + shift) * c, end - begin,
                              static_cast<ptrdiff_t>(stride) * c, c, plane, to + static_cast<size_t>(begin) * 4);
        }
      }
  }

  void pad(uint8_t* line, int plane, int begin, int end) const {
    if (begin >= end) return;
    for (int q = 0; q < c / 4; q++)
      std::memset(line + (static_cast<size_t>(q) * plane + begin) * 4, layer.x_zero(), (end - begin) * size_t{4});
  }

  // Windows written out as rows: for blocks that may begin in one pixel and end in the next.
  void patches(Context& context, const Tensor& x, const std::vector<int64_t>& shape, const SparseOutput& y) const {
    const int step = sparse().tile, k = layer.weights().k;
    const int total = static_cast<int>(shape[0] * shape[1] * shape[2]);
    context.parallel((total + step - 1) / step, [&](size_t i) {
      const int first = static_cast<int>(i) * step, count = std::min(step, total - first);
      uint8_t* rows = scratch(kScratchStrip, static_cast<size_t>(step) * k);
      for (int r = 0; r < count; r++) patch(x, shape, first + r, rows + static_cast<size_t>(r) * k);
      SparseOutput mine = y;
      if (mine.bytes) mine.bytes += static_cast<size_t>(first) * layer.n();
      if (mine.floats) mine.floats += static_cast<size_t>(first) * layer.n();
      sparse().linear(layer.weights(), rows, k, 0, count, 0, layer.n(), mine,
                      scratch(kScratchKernel, sparse().scratch(layer.n(), k)));
    });
  }

  void patch(const Tensor& x, const std::vector<int64_t>& shape, int64_t output, uint8_t* to) const {
    const int64_t column = output % shape[2], line = output / shape[2] % shape[1], image = output / shape[2] / shape[1];
    for (int ky = 0; ky < vertical.kernel; ky++)
      for (int kx = 0; kx < horizontal.kernel; kx++, to += c) {
        const int64_t row = line * vertical.stride + ky * vertical.dilation - vertical.begin;
        const int64_t at = column * horizontal.stride + kx * horizontal.dilation - horizontal.begin;
        if (row < 0 || row >= x.dim(1) || at < 0 || at >= x.dim(2)) std::memset(to, layer.x_zero(), c);
        else std::memcpy(to, x.as<uint8_t>() + ((image * x.dim(1) + row) * x.dim(2) + at) * c, c);
      }
  }
};

}  // namespace

OpDefinition qsparseconv() {
  return {"QSparseConv",
          {{kU8}, {kF32}, {kU8}, {kS8}, {kI32}, {kI32}, {kF32}, {kF32, optional}, {kF32, optional}, {kU8, optional},
           {kU8, optional}},
          {{kU8, optional}, {kF32, optional}},
          make<QSparseConv>};
}

}  // namespace oc
