// The greatest or the mean of windows of an image, sums of channels, and the mean of all of it. Host code may include
// this.
#pragma once

#include <cstdint>

namespace oc::cuda {

// The windows along one axis: window i begins at i * stride - before and has at least one value of the image.
struct PoolAxis {
  int64_t size = 0;     // of the image
  int64_t windows = 0;  // of the result
  int64_t kernel = 1, stride = 1;
  int64_t before = 0, after = 0;  // padding
};

// The mean's bytes: saturate(round((mean - x_zero) * ratio) + y_zero), ties to even, in single precision.
struct PoolScale {
  float ratio = 1;  // x_scale / y_scale
  int x_zero = 0, y_zero = 0;
};

// Device pointers aligned to 16 bytes; null: absent. A window has less than 2^23 values, at least one of an image.
struct Pool {
  const uint8_t* x = nullptr;      // [images][down.size][across.size][channels]
  uint8_t* y = nullptr;            // [images][down.windows][across.windows][channels]
  const uint8_t* table = nullptr;  // [256], of results
  int64_t images = 0, channels = 0;
  PoolAxis down, across;
  bool average = false;      // else the greatest; padding is neither
  bool include_pad = false;  // the mean is over padding too, which is x_zero
  PoolScale scale;           // with average
};
void pool(const Pool& arguments, void* stream);

// How the pixels of an image are shared among blocks: sums are the sums of so many parts.
int64_t parts_of_image(int64_t images, int64_t pixels, int64_t channels, int multiprocessors);

// Sums of the pixels of every channel, through the table where there is one. pixels < 2^23.
struct ChannelSums {
  const uint8_t* x = nullptr;      // [images][pixels][channels], aligned to 16 bytes
  const uint8_t* table = nullptr;  // [256]
  int64_t images = 0, pixels = 0, channels = 0;
  int64_t parts = 1;        // parts_of_image, or any other number from 1 to pixels
  int32_t* sums = nullptr;  // [images][parts][channels]
};
void channel_sums(const ChannelSums& arguments, void* stream);

// The mean of all pixels; pixels is not 0.
struct GlobalPool {
  ChannelSums sums;                // whose `sums` is scratch, not used where parts is 1
  uint8_t* y = nullptr;            // [images][channels]
  const uint8_t* table = nullptr;  // [256], of results
  PoolScale scale;
};
void global_pool(const GlobalPool& arguments, void* stream);

}  // namespace oc::cuda
