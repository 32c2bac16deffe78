#include "cpu/convolution.hpp"

#include "cpu/convolution_sinks.hpp"

namespace oc::OC_ISA {
namespace {

// Panels outermost, so that one stays in L1 while the lines, which a caller keeps small enough for L2, go by.
template <class Sink>
void convolve(const Lines& x, const PackedWeights& w, int begin, int end, const Sink& sink) {
  each_panel(w, begin, end, [&](auto vectors, const int8_t* panel, int column) OC_LAMBDA {
    for (int i = 0; i < x.count; i++) {
      const int row = i * x.width;
      // Counted from the first line's first pixel, as the sink does.
      const Rows rows{x.data + i * x.line - row * x.stride, x.stride, x.pitch};
      multiply_panel<vectors>(rows, w, panel, column, row, row + x.width, sink, i, x.count);
    }
  });
}

void to_bytes(const Lines& x, const PackedWeights& w, int begin, int end, const Epilogue& epilogue, uint8_t* y) {
  convolve(x, w, begin, end, PixelsToBytes{epilogue, y});
}

void to_floats(const Lines& x, const PackedWeights& w, int begin, int end, const Epilogue& epilogue, float* y) {
  convolve(x, w, begin, end, PixelsToFloats{epilogue, y});
}

#if defined(OC_AVX512)

// y[c][i] = x[i][c] for at most 16 pixels and channels: pairs, then fours of pixels meet by unpacking, then quarters of
// vectors are dealt out.
OC_INLINE void to_planes_tile(const float* x, ptrdiff_t stride, int pixels, int channels, float* y, ptrdiff_t plane) {
  vi row[16], pair[16];
  unroll<16>([&](auto i) OC_LAMBDA {
    row[i] = _mm512_maskz_loadu_epi32(first(channels), x + least<int>(i, pixels - 1) * stride);
  });
  unroll<8>([&](auto i) OC_LAMBDA {
    pair[2 * i] = _mm512_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
    pair[2 * i + 1] = _mm512_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
  });
  unroll<4>([&](auto i) OC_LAMBDA {
    row[4 * i] = _mm512_unpacklo_epi64(pair[4 * i], pair[4 * i + 2]);
    row[4 * i + 1] = _mm512_unpackhi_epi64(pair[4 * i], pair[4 * i + 2]);
    row[4 * i + 2] = _mm512_unpacklo_epi64(pair[4 * i + 1], pair[4 * i + 3]);
    row[4 * i + 3] = _mm512_unpackhi_epi64(pair[4 * i + 1], pair[4 * i + 3]);
  });
  auto put = [&](int c, vi value) OC_LAMBDA {
    if (c < channels) _mm512_mask_storeu_epi32(y + c * plane, first(pixels), value);
  };
  unroll<4>([&](auto j) OC_LAMBDA {
    const vi even[2] = {_mm512_shuffle_i32x4(row[j], row[4 + j], 0x88),
                        _mm512_shuffle_i32x4(row[8 + j], row[12 + j], 0x88)};
    const vi odd[2] = {_mm512_shuffle_i32x4(row[j], row[4 + j], 0xdd),
                       _mm512_shuffle_i32x4(row[8 + j], row[12 + j], 0xdd)};
    put(j, _mm512_shuffle_i32x4(even[0], even[1], 0x88));
    put(8 + j, _mm512_shuffle_i32x4(even[0], even[1], 0xdd));
    put(4 + j, _mm512_shuffle_i32x4(odd[0], odd[1], 0x88));
    put(12 + j, _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd));
  });
}

#else

void to_planes_tile(const float* x, ptrdiff_t stride, int pixels, int channels, float* y, ptrdiff_t plane) {
  for (int c = 0; c < channels; c++)
    for (int i = 0; i < pixels; i++) y[c * plane + i] = x[i * stride + c];
}

#endif

void to_planes(const float* x, ptrdiff_t stride, int pixels, int channels, float* y, ptrdiff_t plane) {
  for (int c = 0; c < channels; c += 16)
    for (int i = 0; i < pixels; i += 16)
      to_planes_tile(x + i * stride + c, stride, least(16, pixels - i), least(16, channels - c), y + c * plane + i,
                     plane);
}

}  // namespace

extern const ConvolutionKernels convolution = {kPanel * kLanes, kLanes, pack_weights, to_bytes, to_floats, to_planes};

}  // namespace oc::OC_ISA
