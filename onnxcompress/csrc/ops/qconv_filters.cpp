#include "ops/qconv_filters.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace oc {

namespace {

constexpr int64_t kMostExtent = 1 << 16;
constexpr int64_t kMostWindow = 1 << 16;  // 2^16 products of 255 and 128 stay below 2^31

int extent(int64_t value, int64_t least, const char* message) {
  require(value >= least && value <= kMostExtent, message);
  return static_cast<int>(value);
}

float value_at(const Tensor& t, int i) { return t.as<float>()[t.size() == 1 ? 0 : i]; }

// How many groups to join, so that together they fill a vector of output channels.
int joined(int groups, int outputs, int lanes) {
  int join = 1;
  for (int candidate = 1; candidate <= groups && candidate * outputs <= lanes; candidate++)
    if (groups % candidate == 0) join = candidate;
  return join;
}

}  // namespace

Window::Window(const Info& info, int64_t kernel_h, int64_t kernel_w) {
  const auto strides = info.integers("strides", {1, 1}), dilations = info.integers("dilations", {1, 1});
  const auto pads = info.integers("pads", {0, 0, 0, 0});
  require(strides.size() == 2 && dilations.size() == 2, "strides and dilations must have 2 values");
  require(pads.size() == 4, "pads must have 4 values: top, left, bottom, right");
  kh = extent(kernel_h, 1, "the kernel's height is out of range");
  kw = extent(kernel_w, 1, "the kernel's width is out of range");
  stride_h = extent(strides[0], 1, "strides must be from 1 to 65536");
  stride_w = extent(strides[1], 1, "strides must be from 1 to 65536");
  dilation_h = extent(dilations[0], 1, "dilations must be from 1 to 65536");
  dilation_w = extent(dilations[1], 1, "dilations must be from 1 to 65536");
  const char* message = "pads must be from 0 to 65536";
  top = extent(pads[0], 0, message), left = extent(pads[1], 0, message);
  bottom = extent(pads[2], 0, message), right = extent(pads[3], 0, message);
  if (kh == 1) dilation_h = 1;  // one tap is never dilated
  if (kw == 1) dilation_w = 1;
}

int64_t Window::out_height(int64_t height) const {
  const int64_t room = height + top + bottom - static_cast<int64_t>(dilation_h) * (kh - 1) - 1;
  return room < 0 ? 0 : room / stride_h + 1;
}

int64_t Window::out_width(int64_t width) const {
  const int64_t room = width + left + right - static_cast<int64_t>(dilation_w) * (kw - 1) - 1;
  return room < 0 ? 0 : room / stride_w + 1;
}

bool Window::inside(int64_t height, int64_t width) const {
  return top == 0 && left == 0 &&
         (out_height(height) - 1) * stride_h + static_cast<int64_t>(dilation_h) * (kh - 1) < height &&
         (out_width(width) - 1) * stride_w + static_cast<int64_t>(dilation_w) * (kw - 1) < width;
}

Filters::Filters(const Tensor& w, const Window& window, int groups, int pixel, uint8_t x_zero) {
  const auto& kernels = convolution();
  const int m = static_cast<int>(w.dim(0)) / groups, c = static_cast<int>(w.dim(3));
  const int join = joined(groups, m, kernels.lanes), taps = window.kh * window.kw;
  channels_ = c * join, outputs_ = m * join, pixel_ = pixel ? pixel : channels_;
  const int64_t row = (static_cast<int64_t>(window.kw) * pixel_ + 3) / 4 * 4;
  require(window.kh * row <= kMostWindow, "a window must have at most 65536 values");
  row_ = static_cast<int>(row);
  const int padded = (outputs_ + kernels.lanes - 1) / kernels.lanes * kernels.lanes, count = groups / join;
  const size_t size = static_cast<size_t>(padded) * window.kh * row_;
  data_ = Buffer<int8_t>(size * count), initial_ = Buffer<int32_t>(static_cast<size_t>(padded) * count);
  std::vector<int8_t> dense(static_cast<size_t>(outputs_) * taps * pixel_);
  for (int g = 0; g < count; g++) {
    std::fill(dense.begin(), dense.end(), 0);
    int32_t* initial = initial_.data() + static_cast<size_t>(g) * padded;
    for (int o = 0; o < outputs_; o++) {
      const int8_t* from = w.as<int8_t>() + (static_cast<size_t>(g) * outputs_ + o) * taps * c;
      int8_t* to = dense.data() + static_cast<size_t>(o) * taps * pixel_ + o / m * c;
      for (int t = 0; t < taps; t++) std::copy_n(from + t * c, c, to + static_cast<size_t>(t) * pixel_);
      initial[o] = -std::accumulate(from, from + static_cast<size_t>(taps) * c, 0) * x_zero;
    }
    int8_t* data = data_.data() + size * g;
    kernels.pack(dense.data(), outputs_, window.kh, window.kw * pixel_, row_, data);
    packed_.push_back({data, initial, outputs_, row_, window.kh});
  }
}

Scales::Scales(const Info& info, const Tensor& w, int groups) {
  const int m = static_cast<int>(w.dim(0));
  const Tensor w_scale = info.constant(kConvWScale, kF32, "w_scale");
  require(w_scale.size() == 1 || w_scale.size() == m, "w_scale must have 1 or M values");
  const auto bias = info.constant(kConvBias), table = info.constant(kConvTable);
  require(!bias || (bias->type == kF32 && bias->size() == m), "bias must have M floats");
  require(!table || (table->type == kU8 && table->size() == 256), "table must have 256 bytes");
  to_bytes_ = info.constant(kConvYScale).has_value();
  const float x_scale = info.scalar(kConvXScale, "x_scale", 1), y_scale = info.scalar(kConvYScale, "y_scale", 1);
  const float residual_scale = info.scalar(kConvResidualScale, "residual_scale", 0);
  const float residual_zero = info.zero_point(kConvResidualZero, "residual_zero_point", 0);
  common_.after = info.integer("residual_after", 0) != 0;
  common_.table = table ? table->as<uint8_t>() : nullptr;
  require(to_bytes_ || (!table && !common_.after), "a table and residual_after need y_scale");
  if (common_.after) {
    const float final_scale = info.scalar(kConvFinalScale, "final_scale", 0);
    const float inner = info.scalar(kConvInnerScale, "inner_scale", 0);
    require(final_scale > 0 && inner > 0, "residual_after needs inner_scale and final_scale, both positive");
    common_.inner_scale = inner / final_scale, common_.residual_scale = residual_scale / final_scale;
    const float final_zero = info.zero_point(kConvFinalZero, "final_zero_point", 0);
    const float inner_zero = info.zero_point(kConvInnerZero, "inner_zero_point", 0);
    common_.final_offset = final_zero - residual_zero * common_.residual_scale - inner_zero * common_.inner_scale;
  } else {
    common_.residual_scale = residual_scale / y_scale;
  }
  const double y_zero = info.zero_point(kConvYZero, "y_zero_point", 0);
  const double constant = common_.after ? y_zero : y_zero - double(residual_zero) * common_.residual_scale;
  scale_.resize(m), offset_.resize(m);
  for (int o = 0; o < m; o++) {
    scale_[o] = static_cast<float>(double(x_scale) * value_at(w_scale, o) / y_scale);
    offset_[o] = static_cast<float>((bias ? bias->as<float>()[o] : 0.) / y_scale + constant);
  }
  require(groups > 0 && m % groups == 0, "group must divide the output channels");
}

void Scales::pad(const Filters& filters) {
  const int lanes = convolution().lanes, outputs = filters.outputs();
  padded_ = (outputs + lanes - 1) / lanes * lanes;
  const size_t size = static_cast<size_t>(padded_) * filters.groups();
  padded_scale_ = Buffer<float>(size), padded_offset_ = Buffer<float>(size);
  for (int g = 0; g < filters.groups(); g++)
    for (int o = 0; o < outputs; o++) {
      padded_scale_[g * padded_ + o] = scale_[g * outputs + o];
      padded_offset_[g * padded_ + o] = offset_[g * outputs + o];
    }
  common_.channels = outputs, common_.stride = static_cast<ptrdiff_t>(outputs) * filters.groups();
}

Epilogue Scales::epilogue(int group) const {
  Epilogue e = common_;
  e.scale = padded_scale_.data() + static_cast<size_t>(group) * padded_;
  e.offset = padded_offset_.data() + static_cast<size_t>(group) * padded_;
  return e;
}

}  // namespace oc
