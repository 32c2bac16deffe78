#include "cpu/winograd.hpp"

#include "cpu/convolution_sinks.hpp"

namespace oc::OC_ISA {
namespace {

constexpr int kWords = 2 * kLanes;  // 16-bit integers of a vector
constexpr int kPatch = 6, kOut = kWinogradOutputs;
typedef int16_t words __attribute__((vector_size(kWords * 2)));
typedef uint32_t sums __attribute__((vector_size(kLanes * 4)));  // unsigned, for they wrap around

// kWords bytes at p, or the first `count` of them and zeros.
OC_INLINE words load_bytes(const uint8_t* p) {
#if defined(OC_AVX512)
  return (words)_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(OC_AVX2)
  return (words)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  words r;
  for (int i = 0; i < kWords; i++) r[i] = p[i];
  return r;
#endif
}

OC_INLINE words load_bytes(const uint8_t* p, int count) {
#if defined(OC_AVX512)
  return (words)_mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8((1u << count) - 1, p));
#else
  uint8_t bytes[kWords] = {};
  std::memcpy(bytes, p, count);
  return load_bytes(bytes);
#endif
}

// B' d.
OC_INLINE void transform_input(const words (&d)[kPatch], words (&t)[kPatch]) {
  const words a = d[4] - (d[2] << 2), b = d[3] - (d[1] << 2), c = d[4] - d[2], half = d[3] - d[1], e = half + half;
  t[0] = c + ((d[0] - d[2]) << 2);
  t[1] = a + b, t[2] = a - b;
  t[3] = c + e, t[4] = c - e;
  t[5] = d[5] - d[3] - (e + e);
}

// A' m.
OC_INLINE void transform_output(const sums (&m)[kPatch], sums (&o)[kOut]) {
  const sums s = m[1] + m[2], d = m[1] - m[2], t = m[3] + m[4], e = m[3] - m[4];
  o[0] = m[0] + (s << 2) + t;
  o[1] = d + d + e;
  o[2] = s + t;
  o[3] = d + (e + e) + m[5];
}

// The powers of two in the denominators of A'.
constexpr int kShift[kOut] = {3, 2, 1, 1};
constexpr uint32_t kInverseOfNine = 954437177;  // modulo 2^32

// A tile among all, and where it is.
struct Place {
  int64_t image, y, x;  // of its first output

  Place(const WinogradTiles& tiles, int64_t i)
      : image(i / (tiles.tiles_h * tiles.tiles_w)),
        y(i / tiles.tiles_w % tiles.tiles_h * kOut),
        x(i % tiles.tiles_w * kOut) {}
};

// The 36 inputs of every tile, for all its channels.
void spread(const WinogradTiles& x, const WinogradScratch& scratch) {
  for (int i = 0; i < x.count; i++) {
    const Place place(x, x.first + i);
    const uint8_t* pixels[kPatch][kPatch];
    for (int r = 0; r < kPatch; r++)
      for (int c = 0; c < kPatch; c++) {
        const int64_t line = place.y - x.top + r, column = place.x - x.left + c;
        const bool inside = line >= 0 && line < x.height && column >= 0 && column < x.width;
        pixels[r][c] = inside ? x.x + ((place.image * x.height + line) * x.width + column) * x.channels : x.border;
      }
    int16_t* to = scratch.inputs + static_cast<ptrdiff_t>(i) * scratch.channels;
    for (int channel = 0; channel < x.channels; channel += kWords, to += kWords) {
      const int count = x.channels - channel;
      words half[kPatch][kPatch];
      unroll<kPatch>([&](auto c) OC_LAMBDA {
        words d[kPatch], t[kPatch];
        unroll<kPatch>([&](auto r) OC_LAMBDA {
          const uint8_t* p = pixels[r][c] + channel;
          d[r] = count >= kWords ? load_bytes(p) : load_bytes(p, count);
        });
        transform_input(d, t);
        unroll<kPatch>([&](auto r) OC_LAMBDA { half[r][c] = t[r]; });
      });
      unroll<kPatch>([&](auto r) OC_LAMBDA {
        words t[kPatch];
        transform_input(half[r], t);
        unroll<kPatch>([&](auto c) OC_LAMBDA {
          store(to + (r * kPatch + c) * scratch.inputs_stride, (vi)t[c]);
        });
      });
    }
  }
}

// Keeps the sums of one product: `Width` vectors of channels a tile, the first of them `first`.
template <int Width>
struct ToProducts {
  int32_t* to;
  int first;

  template <int MR, int NV>
  OC_INLINE void tile(int row, int column, const vi* sums) const {
    int32_t* p = to + static_cast<ptrdiff_t>(row) * Width * kLanes + column - first;
    unroll<MR>([&](auto m) OC_LAMBDA {
      unroll<NV>([&](auto v) OC_LAMBDA { store(p + (m * Width + v) * kLanes, sums[m * NV + v]); });
    });
  }
};

// `width` pixels of an output line, the first of them `pixel`.
template <int NV, class Sink>
OC_INLINE void give(const Sink& sink, int pixel, int column, int width, const vi* outputs) {
  if (width >= 4) return sink.template tile<4, NV>(pixel, column, outputs);
  for (int i = 0; i < width; i++) sink.template tile<1, NV>(pixel + i, column, outputs + i * NV);
}

// The outputs of every tile, for the NV vectors of channels from `column` on.
template <int NV, class Sink>
void gather(const WinogradTiles& x, const WinogradWeights& w, const WinogradScratch& scratch, int column,
            const Sink& sink) {
  for (int i = 0; i < x.count; i++) {
    const Place place(x, x.first + i);
    const int32_t* from = scratch.products + static_cast<ptrdiff_t>(i) * NV * kLanes;
    sums half[NV][kOut][kPatch];
    for (int v = 0; v < NV; v++)
      unroll<kPatch>([&](auto c) OC_LAMBDA {
        sums m[kPatch], o[kOut];
        unroll<kPatch>([&](auto r) OC_LAMBDA {
          m[r] = (sums)load(from + (r * kPatch + c) * scratch.products_stride + v * kLanes);
        });
        transform_output(m, o);
        unroll<kOut>([&](auto r) OC_LAMBDA { half[v][r][c] = o[r]; });
      });
    const int64_t first = (place.image * x.out_height + place.y) * x.out_width + place.x;
    const int height = static_cast<int>(least<int64_t>(kOut, x.out_height - place.y));
    const int width = static_cast<int>(least<int64_t>(kOut, x.out_width - place.x));
    unroll<kOut>([&](auto r) OC_LAMBDA {
      if (r >= height) return;
      vi outputs[kOut * NV];
      unroll<NV>([&](auto v) OC_LAMBDA {
        sums o[kOut];
        transform_output(half[v][r], o);
        const vi offset = load(w.offset + column + v * kLanes);
        unroll<kOut>([&](auto c) OC_LAMBDA {
          typedef int32_t whole __attribute__((vector_size(kLanes * 4)));
          const whole exact = (whole)(o[c] * kInverseOfNine) >> (kShift[r] + kShift[c]);
          outputs[c * NV + v] = add((vi)exact, offset);
        });
      });
      give<NV>(sink, static_cast<int>(first + r * x.out_width), column, width, outputs);
    });
  }
}

template <class Sink>
void convolve(const WinogradTiles& x, const WinogradWeights& w, const WinogradScratch& scratch, const Sink& sink) {
  spread(x, scratch);
  each_panel(w.packed, 0, w.packed.n, [&](auto vectors, const int8_t* panel, int column) OC_LAMBDA {
    PackedWords product = w.packed;
    product.segments = 1;
    for (int p = 0; p < kWinogradProducts; p++) {
      const int16_t* inputs = scratch.inputs + p * scratch.inputs_stride;
      const Rows rows{reinterpret_cast<const uint8_t*>(inputs), scratch.channels * 2, 0};
      const ToProducts<vectors> kept{scratch.products + p * scratch.products_stride, column};
      multiply_panel<vectors>(rows, product, panel, column, 0, x.count, kept);
      panel += vectors * kLanes * product.k;
    }
    gather<vectors>(x, w, scratch, column, sink);
  });
}

void to_bytes(const WinogradTiles& x, const WinogradWeights& w, const WinogradScratch& scratch,
              const Epilogue& epilogue, uint8_t* y) {
  convolve(x, w, scratch, PixelsToBytes{epilogue, y});
}

void to_floats(const WinogradTiles& x, const WinogradWeights& w, const WinogradScratch& scratch,
               const Epilogue& epilogue, float* y) {
  convolve(x, w, scratch, PixelsToFloats{epilogue, y});
}

}  // namespace

extern const WinogradKernels winograd = {kWords, to_bytes, to_floats};

}  // namespace oc::OC_ISA
