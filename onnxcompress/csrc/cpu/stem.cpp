#include "cpu/stem.hpp"

namespace oc::OC_ISA {
namespace {

struct Steps {
  vf inverse, zero_point;

  // Not-a-number gives 0: it passes through the minimum, and converts to the least integer.
  OC_INLINE vi operator()(vf x) const { return to_int(min(setf(65536.f), fma(x, inverse, zero_point))); }
};

#if defined(OC_AVX512)

// kLanes pixels of three planes, four bytes each of which the last is 0.
OC_INLINE vi three_bytes(const Steps& steps, const float* x, ptrdiff_t plane) {
  const vi most = set(255);
  vi q[3];
  unroll<3>([&](auto c) OC_LAMBDA {
    q[c] = _mm512_min_epi32(_mm512_max_epi32(steps(loadf(x + c * plane)), zero()), most);
  });
  return _mm512_or_si512(_mm512_or_si512(q[0], _mm512_slli_epi32(q[1], 8)), _mm512_slli_epi32(q[2], 16));
}

#endif

void quantize(const float* x, ptrdiff_t plane, int channels, int width, float scale, float zero_point, uint8_t* y,
              ptrdiff_t stride) {
  const Steps steps{setf(1.f / scale), setf(zero_point)};
  if (channels == 1 && stride == 1) {
    for (int i = 0; i < width; i += kLanes) {
      const int count = least(width - i, kLanes);
      store_u8(y + i, steps(loadf(x + i, count)), count);
    }
    return;
  }
  if (stride <= 4) {
    int i = 0;
#if defined(OC_AVX512)
    if (channels == 3 && stride == 4)
      for (; i + kLanes <= width; i += kLanes) store(y + i * 4, three_bytes(steps, x + i, plane));
#endif
    for (; i < width; i += kLanes) {
      const int count = least(width - i, kLanes);
#if defined(OC_AVX512)
      const vi most = set(255), least_value = zero();
      vi pixels = zero();
      for (int c = channels - 1; c >= 0; c--) {
        vi q = steps(loadf(x + c * plane + i, count));
        q = _mm512_min_epi32(_mm512_max_epi32(q, least_value), most);
        pixels = _mm512_or_si512(_mm512_slli_epi32(pixels, 8), q);
      }
      if (stride == 4) {
        _mm512_mask_storeu_epi32(y + i * 4, first(count), pixels);
        continue;
      }
      alignas(64) uint8_t four[kLanes * 4];
      store(four, pixels);
      for (int j = 0; j < count; j++)
        for (int c = 0; c < stride; c++) y[(i + j) * stride + c] = four[j * 4 + c];
#else
      uint8_t bytes[4][kLanes] = {};
      for (int c = 0; c < channels; c++) store_u8(bytes[c], steps(loadf(x + c * plane + i, count)), count);
      for (int j = 0; j < count; j++)
        for (int c = 0; c < stride; c++) y[(i + j) * stride + c] = bytes[c][j];
#endif
    }
    return;
  }
  for (int c = 0; c < channels; c++) {
    for (int i = 0; i < width; i += kLanes) {
      const int count = least(width - i, kLanes);
      uint8_t bytes[kLanes];
      store_u8(bytes, steps(loadf(x + c * plane + i, count)), count);
      for (int j = 0; j < count; j++) y[(i + j) * stride + c] = bytes[j];
    }
  }
}

}  // namespace

extern const StemKernels stem = {quantize};

}  // namespace oc::OC_ISA
