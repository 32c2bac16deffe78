// Weights of convolutions as the tensor-core kernel reads them. Plain C++, for the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/host_device.hpp"

namespace oc::cuda {

// The weights of a convolution, s8 [outputs][kernel_h][kernel_w][channels]; channels are those of one group.
// outputs is a multiple of groups; kernel_h * kernel_w * channels at most 65536, so that sums fit 32 bits; a kernel
// spans at most 32767 pixels with its dilation.
struct ConvolutionFilters {
  int outputs, kernel_h, kernel_w, channels, groups;
  int dilation_y = 1, dilation_x = 1;
};

// Where `width` consecutive bytes of a window lie: dy rows and dx pixels from its corner, at this channel of the group.
// channel < 0: nowhere, they pad the depth.
struct ConvolutionTap {
  int16_t dy, dx;
  int channel;
};

constexpr int kConvolutionDepth = 64;  // of a tile: what depths are padded to

// How the weights are laid out: [groups][outputs][padded_depth], the depth over (ky, kx, channel), channel innermost.
// Groups of few channels are joined, with zeros off the diagonal, where that makes less work than tiles filled with
// padding; the sizes are those of the joined groups.
struct ConvolutionPlan {
  int groups, outputs, channels;
  int depth, padded_depth;
  int width;  // bytes of a tap: 16, 8, 4 or 1, the widest of which every piece of a window is one load

  size_t weight_bytes() const { return size_t(groups) * outputs * padded_depth; }
  size_t tap_count() const { return size_t(padded_depth) / width; }
};

ConvolutionPlan plan_convolution(const ConvolutionFilters& filters);

// weights: weight_bytes(); taps: tap_count(); weight_sums: filters.outputs. All are written whole.
void pack_convolution(const ConvolutionFilters& filters, const ConvolutionPlan& plan, const int8_t* w, int8_t* weights,
                      ConvolutionTap* taps, int32_t* weight_sums);

// Depthwise weights, s8 [channels][kernel_h][kernel_w], to [kernel_h * kernel_w][pitch] with zeros behind the channels;
// pitch: depthwise_pitch(channels).
OC_HOST_DEVICE constexpr int depthwise_pitch(int channels) { return (channels + 3) / 4 * 4; }
void pack_depthwise(const int8_t* w, int channels, int taps, int8_t* weights, int32_t* weight_sums);

}  // namespace oc::cuda
