#include "cuda/convolution_pack.hpp"

#include <algorithm>
#include <cstring>

namespace oc::cuda {
namespace {

int round_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

ConvolutionPlan join_groups(const ConvolutionFilters& f, int joined) {
  ConvolutionPlan plan;
  plan.groups = f.groups / joined;
  plan.outputs = f.outputs / plan.groups;
  plan.channels = f.channels * joined;
  plan.depth = f.kernel_h * f.kernel_w * plan.channels;
  plan.padded_depth = round_up(plan.depth, kConvolutionDepth);
  plan.width = plan.channels % 16 == 0 ? 16 : plan.channels % 8 == 0 ? 8 : plan.channels % 4 == 0 ? 4 : 1;
  return plan;
}

// Work of a pixel: the multiply-accumulates of whole tiles, dearer where the loads that feed them are narrow.
double cost(const ConvolutionPlan& plan) {
  constexpr int kNarrowestTile = 32;
  const double load = plan.width == 16 ? 1 : plan.width == 8 ? 1.25 : plan.width == 4 ? 1.5 : 4;
  return load * plan.groups * plan.padded_depth * round_up(plan.outputs, kNarrowestTile);
}

}  // namespace

ConvolutionPlan plan_convolution(const ConvolutionFilters& filters) {
  constexpr int kMaximumDepth = 65536;
  ConvolutionPlan best = join_groups(filters, 1);
  for (int joined = 2; joined <= filters.groups; ++joined) {
    if (filters.groups % joined) continue;
    if (int64_t{filters.kernel_h} * filters.kernel_w * filters.channels * joined > kMaximumDepth) break;
    const ConvolutionPlan plan = join_groups(filters, joined);
    if (cost(plan) < cost(best)) best = plan;
  }
  return best;
}

void pack_convolution(const ConvolutionFilters& filters, const ConvolutionPlan& plan, const int8_t* w, int8_t* weights,
                      ConvolutionTap* taps, int32_t* weight_sums) {
  const int pixels = filters.kernel_h * filters.kernel_w;
  const int outputs_of_group = filters.outputs / filters.groups;
  std::memset(weights, 0, plan.weight_bytes());
  for (int n = 0; n < filters.outputs; ++n) {
    int8_t* const row = weights + size_t(n) * plan.padded_depth;
    const int first_channel = n % plan.outputs / outputs_of_group * filters.channels;
    int32_t sum = 0;
    for (int pixel = 0; pixel < pixels; ++pixel) {
      const int8_t* const from = w + (size_t(n) * pixels + pixel) * filters.channels;
      std::copy_n(from, filters.channels, row + size_t(pixel) * plan.channels + first_channel);
      for (int c = 0; c < filters.channels; ++c) sum += from[c];
    }
    weight_sums[n] = sum;
  }
  for (size_t i = 0; i < plan.tap_count(); ++i) {
    const int k = static_cast<int>(i) * plan.width, pixel = k / plan.channels;
    if (k >= plan.depth) {
      taps[i] = {0, 0, -1};
    } else {
      taps[i] = {static_cast<int16_t>(pixel / filters.kernel_w * filters.dilation_y),
                 static_cast<int16_t>(pixel % filters.kernel_w * filters.dilation_x), k % plan.channels};
    }
  }
}

void pack_depthwise(const int8_t* w, int channels, int taps, int8_t* weights, int32_t* weight_sums) {
  const int pitch = depthwise_pitch(channels);
  std::memset(weights, 0, size_t(taps) * pitch);
  for (int c = 0; c < channels; ++c) {
    weight_sums[c] = 0;
    for (int tap = 0; tap < taps; ++tap) {
      const int8_t value = w[size_t(c) * taps + tap];
      weights[size_t(tap) * pitch + c] = value;
      weight_sums[c] += value;
    }
  }
}

}  // namespace oc::cuda
