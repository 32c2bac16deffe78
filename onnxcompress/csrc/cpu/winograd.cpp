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

// The four channels of kLanes outputs at p, as words: channels 0 and 1 of each lane, and 2 and 3.
OC_INLINE void load_weights(const int8_t* p, words& first, words& second) {
#if defined(OC_AVX512)
  const vi pairs = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  const vi halves = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const vi x = _mm512_permutexvar_epi64(halves, _mm512_shuffle_epi8(load(p), pairs));
  first = (words)_mm512_cvtepi8_epi16(_mm512_castsi512_si256(x));
  second = (words)_mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(x, 1));
#elif defined(OC_AVX2)
  const vi pairs = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  const vi x = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(load(p), pairs), 0xd8);
  first = (words)_mm256_cvtepi8_epi16(_mm256_castsi256_si128(x));
  second = (words)_mm256_cvtepi8_epi16(_mm256_extracti128_si256(x, 1));
#else
  for (int i = 0; i < kWords; i++) {
    const int8_t* lane = p + i / 2 * 4 + i % 2;
    first[i] = lane[0], second[i] = lane[2];
  }
#endif
}

// G g.
OC_INLINE void transform_weight(const words (&g)[3], words (&t)[kPatch]) {
  const words ends = g[0] + g[2], far = g[0] + (g[2] << 2), twice = g[1] + g[1];
  const words first = g[0] + g[0], last = g[2] + g[2];
  t[0] = first + (first << 1);
  t[1] = -(ends + g[1]), t[2] = g[1] - ends;
  t[3] = far + twice, t[4] = far - twice;
  t[5] = last + (last << 1);
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

// U = G g G' of the words of one vector of outputs, to `to` and every `stride` bytes from there.
OC_INLINE void transform_words(const words (&g)[3][3], int8_t* to, ptrdiff_t stride) {
  words half[kPatch][3];
  unroll<3>([&](auto x) OC_LAMBDA {
    const words column[3] = {g[0][x], g[1][x], g[2][x]};
    words t[kPatch];
    transform_weight(column, t);
    unroll<kPatch>([&](auto i) OC_LAMBDA { half[i][x] = t[i]; });
  });
  unroll<kPatch>([&](auto i) OC_LAMBDA {
    words t[kPatch];
    transform_weight(half[i], t);
    unroll<kPatch>([&](auto j) OC_LAMBDA { store(to + (i * kPatch + j) * stride, (vi)t[j]); });
  });
}

void transform_weights(const PackedWeights& direct, int channels, const WinogradWeights& weights) {
  const int panel = weights.column / (kPanel * kLanes) * (kPanel * kLanes);
  const ptrdiff_t step = least(kPanel * kLanes, padded(direct.n) - panel) * 4;  // from four values of k to the next
  const int8_t* from = direct.data + static_cast<ptrdiff_t>(panel) * direct.k * 3 + (weights.column - panel) * 4;
  const int8_t* taps[3][3];
  for (int ky = 0; ky < 3; ky++)
    for (int kx = 0; kx < 3; kx++) taps[ky][kx] = from + (ky * direct.k + kx * channels) / 4 * step;
  constexpr int kAhead = 8;  // vectors that are a panel apart do not come by themselves
  int8_t* to = weights.data;
  for (int c = 0; c < channels; c += 4, to += 2 * weights.vectors * kLanes * 4)
    for (int v = 0; v < weights.vectors; v++) {
      const ptrdiff_t at = c / 4 * step + v * kLanes * 4;
      words first[3][3], second[3][3];
      unroll<3>([&](auto ky) OC_LAMBDA {
        unroll<3>([&](auto kx) OC_LAMBDA {
          const int8_t* p = taps[ky][kx] + at;
          load_weights(p, first[ky][kx], second[ky][kx]);
          __builtin_prefetch(p + kAhead * step, 0, 3);
        });
      });
      transform_words(first, to + v * kLanes * 4, weights.stride);
      transform_words(second, to + (weights.vectors + v) * kLanes * 4, weights.stride);
    }
}

void transform_inputs(const WinogradTiles& x, const WinogradInputs& inputs) {
  for (int i = 0; i < x.count; i++) {
    const Place place(x, x.first + i);
    const uint8_t* pixels[kPatch][kPatch];
    for (int r = 0; r < kPatch; r++)
      for (int c = 0; c < kPatch; c++) {
        const int64_t line = place.y - x.top + r, column = place.x - x.left + c;
        const bool inside = line >= 0 && line < x.height && column >= 0 && column < x.width;
        pixels[r][c] = inside ? x.x + ((place.image * x.height + line) * x.width + column) * x.channels : x.border;
      }
    int16_t* to = inputs.data + static_cast<ptrdiff_t>(i) * inputs.channels;
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
          store(to + (r * kPatch + c) * inputs.stride, (vi)t[c]);
        });
      });
    }
  }
}

// Keeps the sums of one product: `Width` vectors a tile.
template <int Width>
struct ToSums {
  int32_t* to;

  template <int MR, int NV>
  OC_INLINE void tile(int row, int column, const vi* sums) const {
    int32_t* p = to + static_cast<ptrdiff_t>(row) * Width * kLanes + column;
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
void transform_sums(const WinogradTiles& x, const WinogradSums& products, const int32_t* offset, int column,
                    const Sink& sink) {
  for (int i = 0; i < x.count; i++) {
    const Place place(x, x.first + i);
    const int32_t* from = products.data + static_cast<ptrdiff_t>(i) * NV * kLanes;
    sums half[NV][kOut][kPatch];
    for (int v = 0; v < NV; v++)
      unroll<kPatch>([&](auto c) OC_LAMBDA {
        sums m[kPatch], o[kOut];
        unroll<kPatch>([&](auto r) OC_LAMBDA {
          m[r] = (sums)load(from + (r * kPatch + c) * products.stride + v * kLanes);
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
        const vi more = load(offset + column + v * kLanes);
        unroll<kOut>([&](auto c) OC_LAMBDA {
          typedef int32_t whole __attribute__((vector_size(kLanes * 4)));
          const whole exact = (whole)(o[c] * kInverseOfNine) >> (kShift[r] + kShift[c]);
          outputs[c * NV + v] = add((vi)exact, more);
        });
      });
      give<NV>(sink, static_cast<int>(first + r * x.out_width), column, width, outputs);
    });
  }
}

template <int NV, class Sink>
void convolve(const WinogradTiles& x, const WinogradInputs& inputs, const WinogradWeights& weights,
              const WinogradSums& sums, const int32_t* offset, const Sink& sink) {
  static constexpr int32_t kNothing[kPanel * kLanes] = {};
  const int k = x.channels * 2;
  for (int p = 0; p < kWinogradProducts; p++) {
    const int16_t* rows = inputs.data + p * inputs.stride;
    const int8_t* panel = weights.data + p * weights.stride;
    multiply_panel<NV>({reinterpret_cast<const uint8_t*>(rows), inputs.channels * 2, 0},
                       PackedWords{{panel, kNothing, NV * kLanes, k, 1}}, panel, 0, 0, x.count,
                       ToSums<NV>{sums.data + p * sums.stride});
  }
  transform_sums<NV>(x, sums, offset, weights.column, sink);
}

template <class Sink>
void convolve(const WinogradTiles& x, const WinogradInputs& inputs, const WinogradWeights& weights,
              const WinogradSums& sums, const int32_t* offset, const Sink& sink) {
  switch (weights.vectors) {
    case 1: return convolve<1>(x, inputs, weights, sums, offset, sink);
    case 2: return convolve<2>(x, inputs, weights, sums, offset, sink);
#if defined(OC_AVX512)
    case 3: return convolve<3>(x, inputs, weights, sums, offset, sink);
    case 4: return convolve<4>(x, inputs, weights, sums, offset, sink);
#endif
  }
}

void to_bytes(const WinogradTiles& x, const WinogradInputs& inputs, const WinogradWeights& weights,
              const WinogradSums& sums, const int32_t* offset, const Epilogue& epilogue, uint8_t* y) {
  convolve(x, inputs, weights, sums, offset, PixelsToBytes{epilogue, y});
}

void to_floats(const WinogradTiles& x, const WinogradInputs& inputs, const WinogradWeights& weights,
               const WinogradSums& sums, const int32_t* offset, const Epilogue& epilogue, float* y) {
  convolve(x, inputs, weights, sums, offset, PixelsToFloats{epilogue, y});
}

}  // namespace

extern const WinogradKernels winograd = {kWords, transform_inputs, transform_weights, to_bytes, to_floats};

}  // namespace oc::OC_ISA
