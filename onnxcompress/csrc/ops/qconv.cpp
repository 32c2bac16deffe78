// QConv: y = table[quantize(convolution + residual)], on quantized images with channels last.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "cpu/layout.hpp"
#include "ops/depthwise.hpp"
#include "ops/qconv_winograd.hpp"
#include "ops/rounding.hpp"
#include "ops/tasks.hpp"

namespace oc {

namespace {

constexpr int kFloatSlot = 1;
constexpr int64_t kStripBytes = 256 << 10;  // of L2
constexpr int64_t kMostStripBytes = 256 << 20;
constexpr int64_t kBlockBytes = 24 << 10;   // of L1

// How the work is cut: `pieces` of at most `lines` lines of each image, and of `channels` output channels.
struct Cut {
  int64_t images, lines_total, width;
  int64_t lines, pieces;
  int channels, channel_pieces;
};

class QConv : public Kernel {
 public:
  explicit QConv(const Info& info)
      : w_(info.constant(kConvW, kS8, "w")),
        x_scale_(info.scalar(kConvXScale, "x_scale", 1)),
        x_zero_(info.zero_point(kConvXZero, "x_zero_point", 0)),
        groups_(checked_groups(info, w_)),
        window_(info, w_.dim(1), w_.dim(2)),
        scales_(info, w_, groups_),
        from_planes_(layout_of(info, "x_layout")),
        to_planes_(layout_of(info, "y_layout") && !scales_.to_bytes()),
        channels_(static_cast<int>(w_.dim(3)) * groups_),
        stem_(from_planes_ && groups_ == 1 && channels_ <= 4 && window_.dilation_w == 1),
        filters_(w_, window_, groups_, stem_ && channels_ == 3 ? 4 : 0, x_zero_),
        strips_(window_, channels_, x_scale_, x_zero_) {
    require(x_scale_ > 0, "x_scale must be positive");
    scales_.pad(filters_);
    for (size_t i = kConvBias; i <= kConvFinalZero; i++) constant_[i] = info.constant(i).has_value();
    if (groups_ > 1 && groups_ == w_.dim(0) && w_.dim(3) == 1 && !to_planes_ && !scales_.epilogue(0).after)
      depthwise_ = make_depthwise();
    if (!from_planes_ && !to_planes_ && Winograd::suits(w_, window_, groups_))
      winograd_.emplace(filters_[0], channels_, window_, x_zero_);
  }

  void compute(Context& context) override {
    if (!checked_) {  // which inputs are given is the same in every run
      for (size_t i = kConvBias; i <= kConvFinalZero; i++)
        require(i == kConvResidual || constant_[i] == context.has(i), "only x and residual may be computed at run time");
      checked_ = true;
    }
    const Tensor x = context.input(kConvX);
    require(x.rank() == 4, "x must have 4 dimensions");
    require(x.type == (from_planes_ ? kF32 : kU8), "x must be uint8 in NHWC, or float in NCHW");
    require(x.dim(from_planes_ ? 1 : 3) == channels_, "the channels of x are not those of w");
    Run run{};
    run.images = x.dim(0), run.height = x.dim(from_planes_ ? 2 : 1), run.width = x.dim(from_planes_ ? 3 : 2);
    run.out_height = window_.out_height(run.height), run.out_width = window_.out_width(run.width);
    require(run.out_height > 0 && run.out_width > 0, "the kernel is larger than the padded image");
    require(run.width < (1 << 24) && run.out_width < (1 << 24), "the image is too wide");
    require(run.height < (1 << 30) && run.out_height < (1 << 30), "the image is too high");
    const int64_t m = w_.dim(0);
    std::vector<int64_t> shape = {run.images, run.out_height, run.out_width, m};
    if (context.has(kConvResidual)) {
      const Tensor residual = context.input(kConvResidual);
      require(residual.type == kU8 && residual.shape == shape, "residual must be uint8 of the shape of y in NHWC");
      run.residual = residual.as<uint8_t>();
    }
    require(run.residual || !scales_.epilogue(0).after, "residual_after needs a residual");
    if (to_planes_) shape = {run.images, m, run.out_height, run.out_width};
    const Tensor y = context.output(0, shape, kU8), y_float = context.output(1, shape, kF32);
    if (y.size() == 0) return;
    require(x.size() > 0, "the image is empty");
    run.y = y.as<uint8_t>(), run.y_float = y_float.as<float>();
    require(scales_.to_bytes() ? run.y && !run.y_float : run.y_float && !run.y,
            "a node with y_scale gives y, and one without gives y_float");
    Buffer<uint8_t> quantized;
    if (stem_) {
      run.planes = x.as<float>();
    } else if (from_planes_) {
      quantized = quantize(context, x);
      run.x = quantized.data();
    } else {
      run.x = x.as<uint8_t>();
    }
    if (depthwise_) return compute_depthwise(context, run);
    if (winograd_ && winograd_->pays(run)) return winograd_->compute(context, run, scales_.epilogue(0));
    compute_dense(context, run);
  }

 private:
  static int checked_groups(const Info& info, const Tensor& w) {
    require(w.rank() == 4 && w.size() > 0, "w must be [M, kh, kw, C/group]");
    require(w.dim(0) < (1 << 24) && w.dim(3) < (1 << 24), "w has too many channels");
    const int64_t groups = info.integer("group", 1);
    require(groups >= 1 && groups <= w.dim(0) && w.dim(0) % groups == 0, "group must divide the output channels");
    require(groups * w.dim(3) < (1 << 24), "w has too many channels");
    return static_cast<int>(groups);
  }

  static bool layout_of(const Info& info, const char* name) {
    const std::string layout = info.text(name, "NHWC");
    require(layout == "NHWC" || layout == "NCHW", "a layout must be NHWC or NCHW");
    return layout == "NCHW";
  }

  std::optional<Depthwise> make_depthwise() const {
    std::vector<int8_t> taps(w_.as<int8_t>(), w_.as<int8_t>() + w_.size());
    const Window& w = window_;
    return Depthwise(taps.data(), groups_,
                     {w.kh, w.kw, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, w.top, w.left},
                     scales_.scale().data(), scales_.offset().data(), x_zero_, scales_.epilogue(0).table);
  }

  // Float planes to bytes with channels last.
  Buffer<uint8_t> quantize(Context& context, const Tensor& x) const {
    const int64_t plane = x.dim(2) * x.dim(3), pieces = ceil_divide(plane, kLayoutPixels);
    Buffer<uint8_t> bytes(static_cast<size_t>(x.size()) + 16);
    context.parallel(x.dim(0) * pieces, [&](size_t i) {
      const int64_t image = i / pieces, begin = i % pieces * kLayoutPixels;
      const int64_t at = image * plane * channels_;
      const int pixels = static_cast<int>(std::min<int64_t>(kLayoutPixels, plane - begin));
      layout().quantize(x.as<float>() + at + begin, plane, pixels, channels_, x_scale_, x_zero_,
                        bytes.data() + at + begin * channels_);
    });
    return bytes;
  }

  void compute_depthwise(Context& context, const Run& run) const {
    const int step = depthwise_->row_step();
    const double line_ns = run.out_width * channels_ * window_.kh * window_.kw / 80.0;
    const double wanted = std::max(1., task_count(run.images * run.out_height * line_ns) / run.images);
    const int64_t steps = std::max<int64_t>(1, std::lround(run.out_height / wanted / step));
    const int64_t lines = std::min(steps * step, run.out_height), pieces = ceil_divide(run.out_height, lines);
    const int height = static_cast<int>(run.height), width = static_cast<int>(run.width);
    const int out_height = static_cast<int>(run.out_height), out_width = static_cast<int>(run.out_width);
    context.parallel(run.images * pieces, [&](size_t i) {
      const int64_t image = i / pieces, size = run.out_height * run.out_width * channels_;
      const uint8_t* x = run.x + image * run.height * run.width * channels_;
      const int begin = static_cast<int>(i % pieces * lines);
      const int end = std::min(out_height, begin + static_cast<int>(lines));
      if (run.y)
        depthwise_->run(x, height, width, out_height, out_width, run.y + image * size, begin, end,
                        run.residual ? run.residual + image * size : nullptr, scales_.epilogue(0).residual_scale);
      else
        depthwise_->run_floats(x, height, width, out_height, out_width, run.y_float + image * size, begin, end);
    });
  }

  void compute_dense(Context& context, const Run& run) const {
    const bool direct = reads_in_place(run);
    const Cut cut = direct && is_flat(run) ? cut_pixels(run) : cut_lines(run, direct);
    require(direct || strips_.count(cut.lines) <= kMostStripBytes / strips_.pitch(run, filters_),
            "strides, dilations and pads take a window too far apart");
    context.parallel(cut.images * cut.pieces * cut.channel_pieces, [&](size_t i) {
      const int64_t image = i / cut.channel_pieces / cut.pieces, piece = i / cut.channel_pieces % cut.pieces;
      const int begin = static_cast<int>(i % cut.channel_pieces) * cut.channels;
      const int64_t first = piece * cut.lines, lines = std::min(cut.lines, cut.lines_total - first);
      for (int g = 0; g < filters_.groups(); g++) {
        const Lines rows = direct ? in_place(run, cut, g, image, first, lines)
                                  : strips_.fill(run, filters_, g, image, first, lines);
        const int end = std::min(begin + cut.channels, filters_.outputs());
        emit(run, rows, g, image, first * cut.width, begin, end);
      }
    });
  }

  // Whether the GEMM can read windows from x itself.
  bool reads_in_place(const Run& run) const {
    return !run.planes && window_.inside(run.height, run.width) && window_.dilation_w == 1 &&
           (filters_.groups() == 1 || window_.kw == 1) && filters_.row() == window_.kw * filters_.pixel();
  }

  // Whether all pixels of an image, one after the other, are rows of the GEMM.
  bool is_flat(const Run& run) const {
    return window_.kh == 1 && window_.kw == 1 && run.out_width == run.width && run.out_height == run.height;
  }

  double pixel_nanoseconds() const {
    const double lanes = convolution().lanes, outputs = std::ceil(filters_.outputs() / lanes) * lanes;
    return filters_.groups() * outputs * (filters_.row() * window_.kh / 350.0 + 0.05);
  }

  // Pieces for the channels where weights are larger than activations, and for the pixels otherwise.
  Cut cut_channels(Cut cut, int64_t pixels, double* wanted) const {
    *wanted = task_count(pixels * pixel_nanoseconds());
    const int panel = convolution().panel, panels = static_cast<int>(ceil_divide(filters_.outputs(), panel));
    cut.channel_pieces = 1, cut.channels = filters_.outputs();
    if (filters_.groups() > 1 || to_planes_ || pixels >= filters_.outputs() * window_.kh * window_.kw) return cut;
    const int pieces = std::max(1, std::min({panels, 4, static_cast<int>(std::min(*wanted, 4.))}));
    cut.channels = static_cast<int>(ceil_divide(panels, pieces)) * panel;
    cut.channel_pieces = static_cast<int>(ceil_divide(filters_.outputs(), cut.channels));
    *wanted = std::max(1.0, *wanted / cut.channel_pieces);
    return cut;
  }

  // Lines of one pixel each: of all images at once, unless planes keep them apart.
  Cut cut_pixels(const Run& run) const {
    const int64_t plane = run.out_height * run.out_width, images = to_planes_ ? run.images : 1;
    double wanted;
    Cut cut = cut_channels({images, plane * run.images / images, 1, 0, 0, 0, 0}, plane * run.images, &wanted);
    const int64_t floats = kStripBytes / 4 / w_.dim(0) / 48 * 48;
    const int64_t most = to_planes_ ? std::max<int64_t>(48, floats) : int64_t{1} << 20;
    const int64_t lines = static_cast<int64_t>(cut.lines_total * images / wanted) + 1;
    cut.lines = std::max<int64_t>(1, std::min(ceil_divide(lines, 12) * 12, most));
    cut.pieces = ceil_divide(cut.lines_total, cut.lines);
    return cut;
  }

  Cut cut_lines(const Run& run, bool direct) const {
    double wanted;
    Cut cut = cut_channels({run.images, run.out_height, run.out_width, 0, 0, 0, 0},
                           run.images * run.out_height * run.out_width, &wanted);
    const int64_t line_bytes = std::max<int64_t>(direct ? 1 : strips_.pitch(run, filters_) * window_.stride_h,
                                                 run.y_float ? run.out_width * w_.dim(0) * 4 : 1);
    const int64_t overlap = direct ? 0 : (window_.kh - 1) * window_.dilation_h / window_.stride_h;
    const int64_t most = std::max<int64_t>(1, kStripBytes / line_bytes - overlap);
    const int64_t lines = static_cast<int64_t>(run.images * run.out_height / wanted) + 1;
    // Few pixels would not pay for reading the weights.
    const int64_t least = ceil_divide(96, run.out_width);
    cut.lines = std::max<int64_t>(1, std::min({std::max(lines, least), most, run.out_height}));
    cut.pieces = ceil_divide(run.out_height, cut.lines);
    cut.lines = ceil_divide(run.out_height, cut.pieces);
    cut.pieces = ceil_divide(run.out_height, cut.lines);
    return cut;
  }

  Lines in_place(const Run& run, const Cut& cut, int group, int64_t image, int64_t first, int64_t lines) const {
    const int64_t line = run.width * channels_;
    const uint8_t* x = run.x + image * run.height * line + group * filters_.channels();
    if (cut.width == 1 && is_flat(run)) return {x + first * channels_, channels_, 0, 0, static_cast<int>(lines), 1};
    return {x + first * window_.stride_h * line, static_cast<ptrdiff_t>(window_.stride_w) * channels_,
            window_.dilation_h * line, window_.stride_h * line, static_cast<int>(cut.width), static_cast<int>(lines)};
  }

  // Output channels [begin, end) of a group, of the pixels from `pixel` of an image on.
  void emit(const Run& run, const Lines& rows, int group, int64_t image, int64_t pixel, int begin, int end) const {
    const int64_t plane = run.out_height * run.out_width, m = w_.dim(0);
    const int64_t at = (image * plane + pixel) * m + static_cast<int64_t>(group) * filters_.outputs();
    Epilogue epilogue = scales_.epilogue(group);
    epilogue.residual = run.residual ? run.residual + at : nullptr;
    // All channels of a few pixels before the next ones, where neither the pixels nor the weights fit L1.
    const int64_t step = rows.count > 1 || filters_.outputs() <= convolution().panel
                             ? rows.width
                             : std::max<int64_t>(48, kBlockBytes / rows.stride / 48 * 48);
    for (int64_t i = 0; i < rows.width; i += step) {
      Lines block = rows;
      block.data += i * rows.stride, block.width = static_cast<int>(std::min(step, rows.width - i));
      Epilogue e = epilogue;
      if (e.residual) e.residual += i * m;
      if (run.y) {
        convolution().to_bytes(block, filters_[group], begin, end, e, run.y + at + i * m);
      } else if (!to_planes_) {
        convolution().to_floats(block, filters_[group], begin, end, e, run.y_float + at + i * m);
      } else {
        const int64_t first = image * m + static_cast<int64_t>(group) * filters_.outputs();
        emit_planes(block, e, group, run.y_float + first * plane + pixel + i, plane);
      }
    }
  }

  void emit_planes(const Lines& rows, const Epilogue& e, int group, float* y, int64_t plane) const {
    const int pixels = rows.width * rows.count, outputs = filters_.outputs();
    float* floats = reinterpret_cast<float*>(scratch(kFloatSlot, static_cast<size_t>(pixels) * w_.dim(0) * 4));
    convolution().to_floats(rows, filters_[group], 0, outputs, e, floats);
    convolution().to_planes(floats, e.stride, pixels, outputs, y, plane);
  }

  Tensor w_;
  float x_scale_;
  uint8_t x_zero_;
  int groups_;
  Window window_;
  Scales scales_;
  bool from_planes_, to_planes_;
  int channels_;
  bool stem_;
  Filters filters_;
  Strips strips_;
  std::optional<Depthwise> depthwise_;
  std::optional<Winograd> winograd_;
  bool constant_[kConvFinalZero + 1] = {};
  std::atomic<bool> checked_{false};
};

}  // namespace

OpDefinition qconv() {
  return {"QConv",
          {{kAny}, {kF32}, {kU8}, {kS8}, {kF32}, {kF32, optional}, {kF32, optional}, {kU8, optional}, {kU8, optional},
           {kU8, optional}, {kF32, optional}, {kU8, optional}, {kF32, optional}, {kU8, optional}, {kF32, optional},
           {kU8, optional}},
          {{kU8, optional}, {kF32, optional}},
          make<QConv>};
}

}  // namespace oc
