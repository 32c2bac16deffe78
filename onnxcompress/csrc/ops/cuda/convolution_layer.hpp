// Weights of a convolution on a device, for tensor cores or, where it is depthwise, for the kernel of those.
#pragma once

#include "cuda/convolution.hpp"
#include "ops/cuda/device_kernel.hpp"
#include "ops/qconv_filters.hpp"

namespace oc {

// An image of one run, u8 with channels last.
struct DeviceImage {
  const uint8_t* x;
  int64_t batch, height, width;
};

class ConvolutionLayer {
 public:
  // w: s8 [outputs, kh, kw, channels of a group], on the host. Throws Error where it is too large.
  ConvolutionLayer(const DeviceKernel& kernel, const int8_t* w, const cuda::ConvolutionFilters& filters,
                   const Window& window);

  // Throws Error where a size of the image, or of the result, is out of range.
  void run(Context& context, const DeviceKernel& kernel, const DeviceImage& image,
           const cuda::Epilogue& epilogue) const;

  // Of the weights of every output: on the device.
  const int32_t* weight_sums() const { return sums_.as<int32_t>(); }
  int channels() const { return filters_.channels * filters_.groups; }

 private:
  cuda::ConvolutionFilters filters_;
  Window window_;
  bool depthwise_;
  cuda::ConvolutionPlan plan_{};
  DeviceBuffer weights_, taps_, sums_;
};

}  // namespace oc
