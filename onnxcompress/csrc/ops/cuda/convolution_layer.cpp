#include "ops/cuda/convolution_layer.hpp"

#include <climits>

#include "cuda/depthwise.hpp"

namespace oc {

ConvolutionLayer::ConvolutionLayer(const DeviceKernel& kernel, const int8_t* w,
                                   const cuda::ConvolutionFilters& filters, const Window& window)
    : filters_(filters), window_(window),
      depthwise_(filters.groups > 1 && filters.channels == 1 && filters.groups == filters.outputs) {
  const int taps = filters.kernel_h * filters.kernel_w;
  constexpr int kMostSpan = 32767, kMostGroups = 65535;
  require(int64_t{taps} * filters.channels <= 65536, "a window must have at most 65536 values");
  require(int64_t{window.dilation_h} * (window.kh - 1) <= kMostSpan &&
              int64_t{window.dilation_w} * (window.kw - 1) <= kMostSpan,
          "a window is too wide");
  std::vector<int32_t> sums(filters.outputs);
  std::vector<int8_t> packed;
  if (depthwise_) {
    packed.resize(size_t(taps) * cuda::depthwise_pitch(filters.outputs));
    cuda::pack_depthwise(w, filters.outputs, taps, packed.data(), sums.data());
  } else {
    plan_ = cuda::plan_convolution(filters);
    require(plan_.groups <= kMostGroups, "the convolution has too many groups");
    packed.resize(plan_.weight_bytes());
    std::vector<cuda::ConvolutionTap> tap_list(plan_.tap_count());
    cuda::pack_convolution(filters, plan_, w, packed.data(), tap_list.data(), sums.data());
    taps_ = kernel.upload(tap_list);
  }
  weights_ = kernel.upload(packed), sums_ = kernel.upload(sums);
}

void ConvolutionLayer::run(Context& context, const DeviceKernel& kernel, const DeviceImage& image,
                           const cuda::Epilogue& epilogue) const {
  const int64_t out_height = window_.out_height(image.height), out_width = window_.out_width(image.width);
  constexpr int64_t kMost = INT_MAX - (1 << 16);
  require(image.height * image.width * channels() <= kMost && image.batch * image.height * image.width <= kMost &&
              image.batch * out_height * out_width <= kMost,
          "the image is too large");
  const auto size = [](int64_t value) { return static_cast<int>(value); };
  if (depthwise_) {
    cuda::depthwise({weights_.as<int8_t>(), image.x, size(image.batch), size(image.height), size(image.width),
                     channels(), size(out_height), size(out_width), window_.kh, window_.kw, window_.stride_h,
                     window_.stride_w, window_.dilation_h, window_.dilation_w, window_.top, window_.left, epilogue},
                    context.stream());
    return;
  }
  cuda::Convolution c{plan_, weights_.as<int8_t>(), taps_.as<cuda::ConvolutionTap>(), image.x, size(image.batch),
                      size(image.height), size(image.width), channels(), size(out_height), size(out_width),
                      window_.stride_h, window_.stride_w, window_.top, window_.left, epilogue,
                      kernel.multiprocessors(), nullptr};
  const DeviceBuffer partial = kernel.allocate(context, cuda::convolution_scratch(c));
  c.partial = partial.as<int32_t>();
  cuda::convolution(c, context.stream());
}

}  // namespace oc
