// What becomes of a tile of sums with rows as lanes: activation, residual, quantization, and the turn back to rows.
#pragma once

#include "cpu/activation.hpp"
#include "cpu/sparse.hpp"
#include "cpu/sparse_tile.hpp"

namespace oc::OC_ISA {
namespace {

constexpr int kBatch = 16;          // outputs whose sums are kept before they are finished
constexpr int kFlush = 4 * kLanes;  // outputs whose bytes are kept before they are turned back to rows

// The rows of a tile. row[i] is where lane i goes to in the output; -1: nowhere.
struct TileRows {
  int vectors;
  int32_t row[kTileRows];
  float scale[kTileRows];  // of x, by row; set where the output has x_scale
  int32_t zero[kTileRows];
};

OC_INLINE void set_row_parameters(const SparseOutput& y, TileRows& rows) {
  if (!y.x_scale) return;
  for (int i = 0; i < rows.vectors * kLanes; i++) {
    const int32_t row = rows.row[i];
    rows.scale[i] = row < 0 ? 0 : y.x_scale[row], rows.zero[i] = row < 0 ? 0 : y.x_zero[row];
  }
}

template <bool kReal>
OC_INLINE vf load_sum(const int32_t* sums) {
  if constexpr (kReal) return loadf(reinterpret_cast<const float*>(sums));
  return to_float(load(sums));
}

// One float in every lane. In assembly: GCC 12 otherwise loads it again at each use.
OC_INLINE vf broadcast(const float* p) {
#if defined(OC_AVX512)
  vf r;
  OC_READS(p, 4);
  asm("vbroadcastss %1, %0" : "=v"(r) : "m"(*p));
  return r;
#else
  return setf(*p);
#endif
}

// The bits of floats as integers, and back.
OC_INLINE vi bits(vf x) {
#if defined(OC_AVX512)
  return _mm512_castps_si512(x);
#elif defined(OC_AVX2)
  return _mm256_castps_si256(x);
#else
  return (vi)x;
#endif
}
OC_INLINE vf reals(vi x) {
#if defined(OC_AVX512)
  return _mm512_castsi512_ps(x);
#elif defined(OC_AVX2)
  return _mm256_castsi256_ps(x);
#else
  return (vf)x;
#endif
}

// The sum of an output and a vector of rows, of bytes with parameters of their rows, as the bits of reals.
OC_INLINE vi real_sum(vi sum, const int32_t* weight_sum, const TileRows& rows, int v) {
  const vi centred = sub(sum, mul(load(rows.zero + v * kLanes), broadcast4(weight_sum)));
  return bits(mul(to_float(centred), loadf(rows.scale + v * kLanes)));
}

// Four vectors of whole numbers, saturated to bytes: byte j of each lane is of vector j.
OC_INLINE vi interleave4(const vi* x) {
#if defined(OC_AVX512)
  const vi order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const vi low = _mm512_packs_epi32(x[0], x[1]), high = _mm512_packs_epi32(x[2], x[3]);
  return _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order);
#elif defined(OC_AVX2)
  const vi order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const vi low = _mm256_packs_epi32(x[0], x[1]), high = _mm256_packs_epi32(x[2], x[3]);
  return _mm256_shuffle_epi8(_mm256_packus_epi16(low, high), order);
#else
  uint8_t bytes[4][kLanes], mixed[kLanes][4];
  for (int j = 0; j < 4; j++) store_u8(bytes[j], x[j]);
  for (int i = 0; i < kLanes; i++)
    for (int j = 0; j < 4; j++) mixed[i][j] = bytes[j][i];
  return load(mixed);
#endif
}

// Whole numbers that later saturate to bytes. What is too small, or not a number, converts to the least integer.
OC_INLINE vi whole(vf x) { return to_int(min(setf(256.f), x)); }

// Sums [output][kTileRows] of kBatch outputs to bytes [output / 4][row][4].
template <Activation::Kind A, bool kReal>
void batch_to_bytes(const SparseOutput& y, int vectors, int first, const int32_t* sums, uint8_t* bytes) {
  // What is linear before and after rounding is one multiplication; so is ReLU, whose 0 is the zero point.
  constexpr bool kFolded = A == Activation::kNone || A == Activation::kRelu;
  float scale[kBatch], offset[kBatch], inverse[kBatch];
  for (int o = 0; o < kBatch; o += kLanes) {
    const vf factor = loadf(y.inverse + first + o), s = loadf(y.scale + first + o), t = loadf(y.offset + first + o);
    storef(inverse + o, factor);
    storef(scale + o, kFolded ? mul(s, factor) : s);
    storef(offset + o, kFolded ? fma(t, factor, setf(y.zero)) : t);
  }
  const Activate<A> activate(y.activation);
  const vf zero = setf(y.zero);
  for (int o = 0; o < kBatch; o += 4) {
    vf s[4], t[4], f[4];
    unroll<4>([&](auto j) OC_LAMBDA {
      s[j] = broadcast(scale + o + j), t[j] = broadcast(offset + o + j);
      if (!kFolded) f[j] = broadcast(inverse + o + j);
    });
    for (int v = 0; v < vectors; v++) {
      vi x[4];
      unroll<4>([&](auto j) OC_LAMBDA {
        vf value = fma(load_sum<kReal>(sums + (o + j) * kTileRows + v * kLanes), s[j], t[j]);
        if (A == Activation::kRelu) value = max(value, zero);
        if (!kFolded) value = fma(activate(value), f[j], zero);
        x[j] = whole(value);
      });
      store(bytes + (o * kTileRows + v * kLanes * 4), interleave4(x));
    }
  }
}

#if defined(OC_AVX512)
// The same with an activation on words.
template <bool kReal>
void batch_to_bytes_by_words(const SparseOutput& y, int vectors, int first, const int32_t* sums, uint8_t* bytes) {
  const WordActivation& table = *y.words;
  const vi values[2] = {load(table.value), load(table.value + 32)};
  const vi slopes[2] = {load(table.slope), load(table.slope + 32)};
  const vi last = _mm512_set1_epi16(WordActivation::kPoints - 1), fraction = _mm512_set1_epi16(0x7fff);
  const __m128i down = _mm_cvtsi32_si128(table.shift), up = _mm_cvtsi32_si128(15 - table.shift);
  const vi order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  auto activate_words = [&](vi x) OC_LAMBDA {
    const vi size = _mm512_abs_epi16(x), point = _mm512_min_epu16(_mm512_srl_epi16(size, down), last);
    const vi part = _mm512_and_si512(_mm512_sll_epi16(size, up), fraction);
    const vi rise = _mm512_mulhrs_epi16(_mm512_permutex2var_epi16(slopes[0], point, slopes[1]), part);
    const vi value = _mm512_add_epi16(_mm512_permutex2var_epi16(values[0], point, values[1]), rise);
    return _mm512_srai_epi16(_mm512_adds_epi16(_mm512_max_epi16(x, zero()), value), WordActivation::kFraction);
  };
  float scale[kBatch], offset[kBatch];
  const vf words = mul(loadf(y.inverse + first), setf(1 << WordActivation::kFraction));
  storef(scale, mul(loadf(y.scale + first), words)), storef(offset, mul(loadf(y.offset + first), words));
  const vf most_words = setf(65536.f);
  for (int o = 0; o < kBatch; o += 4) {
    vf s[4], t[4];
    unroll<4>([&](auto j) OC_LAMBDA { s[j] = broadcast(scale + o + j), t[j] = broadcast(offset + o + j); });
    for (int v = 0; v < vectors; v++) {
      vi x[4];
      unroll<4>([&](auto j) OC_LAMBDA {
        const vf value = fma(load_sum<kReal>(sums + (o + j) * kTileRows + v * kLanes), s[j], t[j]);
        x[j] = to_int(min(most_words, value));
      });
      const vi low = activate_words(_mm512_packs_epi32(x[0], x[1]));
      const vi high = activate_words(_mm512_packs_epi32(x[2], x[3]));
      store(bytes + (o * kTileRows + v * kLanes * 4), _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order));
    }
  }
}
#endif

// Bytes [output / 4][row][4] of `outputs` outputs from `first` on, to their rows of n bytes.
inline void flush_bytes(const SparseOutput& y, const TileRows& rows, int n, int first, int outputs,
                        const uint8_t* bytes) {
#if defined(OC_AVX512)
  static const uint8_t none[256] = {};
  const Table look(y.table ? y.table : none);
#endif
  for (int v = 0; v < rows.vectors; v++) {
    vi x[kLanes];
    unroll<kLanes>([&](auto g) OC_LAMBDA { x[g] = load(bytes + (g * kTileRows + v * kLanes) * 4); });
    transpose(x);
#if defined(OC_AVX512)
    if (y.table) unroll<kLanes>([&](auto i) OC_LAMBDA { x[i] = look(x[i]); });
#endif
    unroll<kLanes>([&](auto i) OC_LAMBDA {
      const int32_t row = rows.row[v * kLanes + i];
      if (row >= 0) {
        uint8_t* to = y.bytes + static_cast<size_t>(row) * n + first;
        store_part(to, x[i], outputs);
#if !defined(OC_AVX512)
        if (y.table)
          for (int c = 0; c < outputs; c++) to[c] = y.table[to[c]];
#endif
      }
    });
  }
}

// Sums [output][kTileRows] of kBatch outputs, of which `outputs` are wanted, to floats in rows `stride` apart: those of
// `to` by lane, or, where `to` is absent, the rows of the output, with the residual added.
template <Activation::Kind A, bool kReal>
void batch_to_floats(const SparseOutput& y, const TileRows& rows, int n, int first, int outputs, const int32_t* sums,
                     float* to, int stride) {
  const Activate<A> activate(y.activation);
  for (int o = 0; o < outputs; o += kLanes)
    for (int v = 0; v < rows.vectors; v++) {
      vi x[kLanes];
      unroll<kLanes>([&](auto j) OC_LAMBDA {
        const vf sum = load_sum<kReal>(sums + (o + j) * kTileRows + v * kLanes);
        x[j] = bits(activate(fma(sum, setf(y.scale[first + o + j]), setf(y.offset[first + o + j]))));
      });
      transpose(x);
      const int count = least(outputs - o, kLanes);
      unroll<kLanes>([&](auto i) OC_LAMBDA {
        const int32_t row = rows.row[v * kLanes + i];
        if (row < 0) return;
        vf real = reals(x[i]);
        if (to) return storef(to + static_cast<size_t>(v * kLanes + i) * stride + first + o, real, count);
        const size_t at = static_cast<size_t>(row) * n + first + o;
        if (count == kLanes) return storef(y.floats + at, y.residual ? add(real, loadf(y.residual + at)) : real);
        if (y.residual) real = add(real, loadf(y.residual + at, count));
        storef(y.floats + at, real, count);
      });
    }
}

// Least and greatest of each lane's row, 0 among them.
struct LaneRanges {
  float low[kTileRows] = {}, high[kTileRows] = {};
};

// Sums [output][kTileRows] of `outputs` outputs to activated reals times inverse, [output][kTileRows]; widens ranges.
template <Activation::Kind A, bool kReal>
void batch_to_lanes(const SparseOutput& y, int vectors, int first, int outputs, const int32_t* sums, float* to,
                    LaneRanges& ranges) {
  const Activate<A> activate(y.activation);
  for (int v = 0; v < vectors * kLanes; v += kLanes) {
    vf low = loadf(ranges.low + v), high = loadf(ranges.high + v);
    auto finish = [&](int o) OC_LAMBDA {
      const int c = first + o;
      const vf sum = load_sum<kReal>(sums + o * kTileRows + v);
      const vf value = mul(activate(fma(sum, broadcast(y.scale + c), broadcast(y.offset + c))), broadcast(y.inverse + c));
      low = min(value, low), high = max(value, high);  // not-a-number is passed over
      storef(to + o * kTileRows + v, value);
    };
    int o = 0;
    for (; o + 4 <= outputs; o += 4) unroll<4>([&](auto j) OC_LAMBDA { finish(o + j); });
    for (; o < outputs; o++) finish(o);
    storef(ranges.low + v, low), storef(ranges.high + v, high);
  }
}

// Reals [output][kTileRows] of all n outputs to bytes, each row by its own range; `bytes`: scratch of flush_bytes.
inline void lanes_to_bytes(const SparseOutput& y, const TileRows& rows, int n, const float* reals,
                           const LaneRanges& ranges, uint8_t* bytes) {
  float factor[kTileRows], zero[kTileRows];
  for (int v = 0; v < rows.vectors * kLanes; v += kLanes) {
    const vf low = loadf(ranges.low + v), high = loadf(ranges.high + v);
    const vf step = max(div(sub(high, low), setf(255)), setf(1e-12f));
    const vf point = max(min(round(div(sub(setf(0), low), step)), setf(255)), setf(0));
    storef(factor + v, div(setf(1), step)), storef(zero + v, point);
    float steps[kLanes];
    storef(steps, step);
    for (int i = 0; i < kLanes; i++) {
      const int32_t row = rows.row[v + i];
      if (row >= 0) y.row_scale[row] = steps[i], y.row_zero[row] = static_cast<uint8_t>(zero[v + i]);
    }
  }
  for (int first = 0; first < n; first += kFlush) {
    const int outputs = least(kFlush, n - first);
    for (int o = 0; o < outputs; o += 4)
      for (int v = 0; v < rows.vectors * kLanes; v += kLanes) {
        const vf f = loadf(factor + v), z = loadf(zero + v);
        vi x[4];
        unroll<4>([&](auto j) OC_LAMBDA {
          x[j] = whole(fma(loadf(reals + static_cast<size_t>(first + o + j) * kTileRows + v), f, z));
        });
        store(bytes + o * kTileRows + v * 4, interleave4(x));
      }
    flush_bytes(y, rows, n, first, outputs, bytes);
  }
}

// Sums [row][pitch] of outputs [begin, end) to activated reals in their place; row i is row first_row + i of x.
template <Activation::Kind A>
void rows_to_reals(const SparseOutput& y, int first_row, int count, int begin, int end, int32_t* sums, int pitch) {
  const Activate<A> activate(y.activation);
  for (int i = 0; i < count; i++, sums += pitch) {
    const vi zero_point = set(y.x_scale ? y.x_zero[first_row + i] : 0);
    const vf row_scale = setf(y.x_scale ? y.x_scale[first_row + i] : 1);
    for (int o = begin; o < end; o += kLanes) {
      int32_t* at = sums + o - begin;
      const vf sum = y.x_scale ? mul(to_float(sub(load(at), mul(zero_point, load(y.weight_sum + o)))), row_scale)
                               : to_float(load(at));
      const vf value = fma(sum, loadf(y.scale + o), loadf(y.offset + o));
      storef(reinterpret_cast<float*>(at), activate(value));
    }
  }
}

// Activated reals of outputs [begin, end) of one row: residual, then floats or bytes.
inline void finish_row(const SparseOutput& y, int n, size_t row, int begin, int end, float* real) {
  vf low = setf(0), high = setf(0);
  const size_t at = row * n + begin;
  const int count = end - begin;
  for (int i = 0; i < count; i += kLanes) {
    vf value = loadf(real + i, count - i);
    if (y.residual) value = add(value, loadf(y.residual + at + i, count - i));
    if (y.floats) storef(y.floats + at + i, value, count - i);
    if (y.row_scale) value = mul(value, loadf(y.inverse + begin + i));
    low = min(value, low), high = max(value, high);
    storef(real + i, value, count - i);
  }
  if (!y.bytes) return;
  float step = 1, zero = y.zero;
  if (y.row_scale) {
    const float least_value = minimum(low);
    step = most((maximum(high) - least_value) / 255, 1e-12f);
    zero = least(__builtin_nearbyintf(-least_value / step), 255.f);
    y.row_scale[row] = step, y.row_zero[row] = static_cast<uint8_t>(zero > 0 ? zero : 0);
  }
  for (int i = 0; i < count; i += kLanes) {
    const vf factor = y.row_scale ? setf(1 / step) : loadf(y.inverse + begin + i);
    store_u8(y.bytes + at + i, whole(fma(loadf(real + i, count - i), factor, setf(zero))), least(count - i, kLanes));
  }
  if (y.table)
    for (int i = 0; i < count; i++) y.bytes[at + i] = y.table[y.bytes[at + i]];
}

}  // namespace
}  // namespace oc::OC_ISA
