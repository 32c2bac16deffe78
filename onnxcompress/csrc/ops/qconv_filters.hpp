// What a convolution is, apart from its tensors: its window, its packed weights and its epilogue.
#pragma once

#include <vector>

#include "cpu/convolution.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

// The inputs of QConv, in order.
enum QConvInput {
  kConvX, kConvXScale, kConvXZero, kConvW, kConvWScale, kConvBias, kConvYScale, kConvYZero, kConvTable, kConvResidual,
  kConvResidualScale, kConvResidualZero, kConvInnerScale, kConvInnerZero, kConvFinalScale, kConvFinalZero
};

struct Window {
  int kh, kw, stride_h, stride_w, dilation_h, dilation_w, top, left, bottom, right;

  // Throws Error where an attribute is not a sensible one. kh and kw are those of the weights.
  Window(const Info& info, int64_t kernel_h, int64_t kernel_w);

  int64_t out_height(int64_t height) const;
  int64_t out_width(int64_t width) const;
  // Whether windows over an image of this size never leave it.
  bool inside(int64_t height, int64_t width) const;
};

// The weights [M, kh, kw, C/group] of a convolution, packed for the GEMM. Groups that fill no vector of output channels
// are joined, with zeros off the diagonal.
class Filters {
 public:
  // `pixel` bytes lie between neighbouring pixels of a window (0: as many as a group has channels).
  Filters(const Tensor& w, const Window& window, int groups, int pixel, uint8_t x_zero);

  int groups() const { return static_cast<int>(packed_.size()); }
  // Channels of a group: of the input and of the output.
  int channels() const { return channels_; }
  int outputs() const { return outputs_; }
  // Bytes of a pixel in a window, and of a window's row padded for the GEMM.
  int pixel() const { return pixel_; }
  int row() const { return row_; }
  const PackedWeights& operator[](int group) const { return packed_[group]; }

 private:
  int channels_, outputs_, pixel_, row_;
  Buffer<int8_t> data_;
  Buffer<int32_t> initial_;
  std::vector<PackedWeights> packed_;
};

// The constants of the epilogue, in the steps of the result, padded to whole vectors for each joined group.
class Scales {
 public:
  Scales(const Info& info, const Tensor& w, int groups);

  bool to_bytes() const { return to_bytes_; }
  // Before they are padded: one value an output channel.
  const std::vector<float>& scale() const { return scale_; }
  const std::vector<float>& offset() const { return offset_; }
  // Lays scale and offset out for these filters.
  void pad(const Filters& filters);
  // Of a group, without pointers to pixels.
  Epilogue epilogue(int group) const;

 private:
  bool to_bytes_;
  Epilogue common_{};
  int padded_ = 0;
  std::vector<float> scale_, offset_;
  Buffer<float> padded_scale_, padded_offset_;
};

}  // namespace oc
