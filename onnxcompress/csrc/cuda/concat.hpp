// Images side by side along their channels, each through a table and enlarged by whole factors; one image alone is
// resized. Host code may include this.
#pragma once

#include <cstdint>

namespace oc::cuda {

// Device pointers aligned to 16 bytes; null: absent.
struct PlacedImage {
  const uint8_t* x = nullptr;      // [rows / down][width / across][channels]
  const uint8_t* table = nullptr;  // [256]
  int64_t channels = 0;
  int64_t down = 1, across = 1;  // every pixel is repeated as often
};

// y[row][column], channels of all images: table[x[row / down][column / across]] of each.
struct Placement {
  uint8_t* y = nullptr;         // [rows][width][sum of channels]
  int64_t rows = 0, width = 0;  // rows of all images of the batch
};
// Preconditions: rows and width are multiples of every image's factors (an image's height is, in a batch).
void place(const PlacedImage* images, int count, const Placement& placement, void* stream);

}  // namespace oc::cuda
