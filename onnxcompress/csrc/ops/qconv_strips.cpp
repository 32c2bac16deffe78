#include "ops/qconv_strips.hpp"

#include <algorithm>

#include "cpu/stem.hpp"

namespace oc {

namespace {

constexpr int kStripSlot = 0;

}  // namespace

// Pixels of a line that windows reach, counted from the left pad.
int64_t Strips::reach(const Run& run) const { return (run.out_width - 1) * window_.stride_w + window_.kw; }

int64_t Strips::pitch(const Run& run, const Filters& filters) const {
  return (window_.dilation_w > 1 ? run.out_width * window_.kw : reach(run)) * filters.pixel();
}

int64_t Strips::count(int64_t lines) const {
  return (lines - 1) * window_.stride_h + static_cast<int64_t>(window_.kh - 1) * window_.dilation_h + 1;
}

Lines Strips::fill(const Run& run, const Filters& filters, int group, int64_t image, int64_t first,
                   int64_t lines) const {
  const int64_t pitch = this->pitch(run, filters), pixel = filters.pixel();
  const int64_t count = this->count(lines);
  uint8_t* strip = scratch(kStripSlot, static_cast<size_t>(count * pitch) + 16);
  for (int64_t i = 0; i < count; i++) {
    const int64_t y = first * window_.stride_h - window_.top + i;
    uint8_t* to = strip + i * pitch;
    if (y < 0 || y >= run.height) std::memset(to, x_zero_, pitch);
    else if (run.planes) quantize(run, pixel, image, y, to);
    else if (window_.dilation_w > 1) copy_windows(run, pixel, group, image, y, to);
    else copy(run, pixel, group, image, y, to);
  }
  const ptrdiff_t stride = (window_.dilation_w > 1 ? window_.kw : window_.stride_w) * pixel;
  return {strip, stride, window_.dilation_h * pitch, window_.stride_h * pitch, static_cast<int>(run.out_width),
          static_cast<int>(lines)};
}

// Pads a line, and gives the number of pixels between the pads.
int64_t Strips::pad(const Run& run, int64_t pixel, uint8_t* to) const {
  const int64_t reached = reach(run), left = std::min<int64_t>(window_.left, reached);
  const int64_t count = std::min(run.width, reached - left);
  std::memset(to, x_zero_, left * pixel);
  std::memset(to + (left + count) * pixel, x_zero_, (reached - left - count) * pixel);
  return count;
}

void Strips::quantize(const Run& run, int64_t pixel, int64_t image, int64_t y, uint8_t* to) const {
  const int64_t count = pad(run, pixel, to), plane = run.height * run.width;
  if (count > 0)
    stem().quantize(run.planes + image * channels_ * plane + y * run.width, plane, channels_, static_cast<int>(count),
                    x_scale_, x_zero_, to + window_.left * pixel, pixel);
}

void Strips::copy(const Run& run, int64_t pixel, int group, int64_t image, int64_t y, uint8_t* to) const {
  const int64_t count = pad(run, pixel, to);
  const uint8_t* from = run.x + (image * run.height + y) * run.width * channels_ + group * pixel;
  if (count <= 0) return;
  to += window_.left * pixel;
  if (pixel == channels_) std::memcpy(to, from, count * pixel);
  else
    for (int64_t i = 0; i < count; i++) std::memcpy(to + i * pixel, from + i * channels_, pixel);
}

void Strips::copy_windows(const Run& run, int64_t pixel, int group, int64_t image, int64_t y, uint8_t* to) const {
  const uint8_t* from = run.x + (image * run.height + y) * run.width * channels_ + group * pixel;
  for (int64_t i = 0; i < run.out_width; i++)
    for (int64_t kx = 0; kx < window_.kw; kx++, to += pixel) {
      const int64_t x = i * window_.stride_w - window_.left + kx * window_.dilation_w;
      if (x < 0 || x >= run.width) std::memset(to, x_zero_, pixel);
      else std::memcpy(to, from + x * channels_, pixel);
    }
}

}  // namespace oc
