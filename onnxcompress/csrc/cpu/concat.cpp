#include "cpu/concat.hpp"

#include "cpu/bytes_vector.hpp"

namespace oc::OC_ISA {
namespace {

// kChannels: the number of channels where it is known, else 0.
template <bool kTable, int kChannels>
OC_INLINE void place_pixels(const uint8_t* x, int pixels, int channels, int repeat, uint8_t* y, ptrdiff_t stride,
                            const ByteTable& look) {
  if (kChannels) channels = kChannels;
  for (int p = 0; p < pixels; p++, x += channels, y += repeat * stride) {
    int c = 0;
    for (; c + kBytes <= channels; c += kBytes) {
      vb bytes = loadb(x + c);
      if (kTable) bytes = look(bytes);
      for (int r = 0; r < repeat; r++) storeb(y + r * stride + c, bytes);
    }
    if (c == channels) continue;
    vb bytes = loadb(x + c, channels - c);
    if (kTable) bytes = look(bytes);
    for (int r = 0; r < repeat; r++) storeb(y + r * stride + c, bytes, channels - c);
  }
}

void place(const uint8_t* x, int pixels, int channels, int repeat, uint8_t* y, ptrdiff_t stride,
           const uint8_t* table) {
  with_table(table, [&](auto has_table, const ByteTable& look) OC_LAMBDA {
    switch (channels) {  // small copies of known size take a few instructions
      case 16: return place_pixels<has_table, 16>(x, pixels, channels, repeat, y, stride, look);
      case 24: return place_pixels<has_table, 24>(x, pixels, channels, repeat, y, stride, look);
      case 32: return place_pixels<has_table, 32>(x, pixels, channels, repeat, y, stride, look);
      case 64: return place_pixels<has_table, 64>(x, pixels, channels, repeat, y, stride, look);
      default: return place_pixels<has_table, 0>(x, pixels, channels, repeat, y, stride, look);
    }
  });
}

}  // namespace

extern const ConcatKernels concat = {place};

}  // namespace oc::OC_ISA
