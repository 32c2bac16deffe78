// The lanes of a vector are queries. A score is a sum of key bytes (unsigned: their zero point adds the same to all
// scores of a query, which softmax drops) times query bytes (signed), the key broadcast. Probabilities are unsigned
// bytes, 255 for the greatest of a query; four keys of them meet four signed bytes of a channel of v, broadcast.
// What rounding takes off the sum of a query's probabilities is given to the mean of all values: a long tail of keys,
// each too small for a byte, would otherwise be lost.
#include "cpu/attention.hpp"

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

#if defined(OC_AVX512)
constexpr int kSums = 16;
#else
constexpr int kSums = 8;
#endif
constexpr int kMostVectors = 2;  // of queries in a block
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kPadding = -3e38f;  // the bias of keys that are not there: below every other

OC_INLINE int round_up(int n, int to) { return (n + to - 1) / to * to; }

// Scratch memory of one head.
struct Work {
  uint8_t* keys;         // [keys][words][4]
  int8_t* values;        // [keys / 4][words][4 channels][4 keys], zero point taken off
  float* key_bias;       // [keys]
  uint8_t* kept;         // [keys]: 1 where any query can attend to the key
  float* mean;           // [words][4]: of the values of the keys kept
  float* scores;         // [keys][vector][lane]
  float* mask;           // [keys][vector][lane], in powers of 2
  uint8_t* chances;      // [keys / 4][vector][lane][4]: probabilities
  uint8_t* queries;      // [word][vector][lane][4]
  uint8_t* result;       // [word][vector][lane][4]
  int padded_keys, words;
};

size_t carve(Work& work, uint8_t* memory, int keys, int size, bool mask) {
  const size_t padded = round_up(keys, kSums), words = (size + 3) / 4, lanes = kMostVectors * kLanes;
  size_t used = 0;
  auto take = [&]<class T>(T*& part, size_t bytes) {
    part = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += (bytes + 63) / 64 * 64;
  };
  take(work.keys, padded * words * 4);
  take(work.values, padded * words * 4);
  take(work.key_bias, padded * sizeof(float));
  take(work.kept, padded);
  take(work.mean, round_up(words * 4, kLanes) * sizeof(float));
  take(work.scores, padded * lanes * sizeof(float));
  take(work.mask, mask ? padded * lanes * sizeof(float) : 0);
  take(work.chances, padded * lanes);
  take(work.queries, round_up(words, 4) * lanes * 4);
  take(work.result, round_up(words, 4) * lanes * 4);
  work.padded_keys = static_cast<int>(padded), work.words = static_cast<int>(words);
  return used;
}

size_t scratch(int keys, int size, bool mask) {
  Work work;
  return carve(work, nullptr, keys, size, mask);
}

void pack_keys(const AttentionHead& head, const Work& work) {
  const int width = work.words * 4;
  for (int s = 0; s < head.keys; s++) {
    const uint8_t* from = head.k + s * head.stride;
    uint8_t* to = work.keys + static_cast<size_t>(s) * width;
    int i = 0;
#if defined(OC_AVX512)
    for (; i + 32 <= head.size; i += 32)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
#endif
    for (; i + 4 <= head.size; i += 4) __builtin_memcpy(to + i, from + i, 4);
    for (; i < width; i++) to[i] = i < head.size ? from[i] : 128;
  }
  for (size_t i = static_cast<size_t>(head.keys) * width; i < static_cast<size_t>(work.padded_keys) * width; i++)
    work.keys[i] = 128;
}

void pack_values(const AttentionHead& head, const Work& work) {
  const int width = work.words * 4;
  for (int s = 0; s < work.padded_keys; s += 4) {
    int8_t* to = work.values + static_cast<size_t>(s) * width;
    const int rows = head.keys - s;
    const uint8_t* from = head.v + s * head.stride;
    int c = 0;
#if defined(OC_AVX512)
    if (rows >= 4) {
      const vi words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
      const vi bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
      auto row = [&](int r) OC_LAMBDA {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * head.stride + c));
      };
      for (; c + 16 <= head.size; c += 16) {
        vi x = _mm512_inserti32x4(_mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(row(0)), row(1), 1),
                                                     row(2), 2), row(3), 3);
        x = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, x), bytes);
        store(to + c * 4, _mm512_xor_si512(x, _mm512_set1_epi8(static_cast<char>(128))));
      }
    }
#endif
    for (; c < width; c++)
      for (int r = 0; r < 4; r++)
        to[c * 4 + r] = c < head.size && r < rows ? static_cast<int8_t>(from[r * head.stride + c] - 128) : 0;
  }
}

void bias_keys(const AttentionHead& head, const Work& work) {
  constexpr float kNothing = -64;  // 2^-64 of a probability
  for (int s = 0; s < work.padded_keys; s++) {
    work.key_bias[s] = s >= head.keys ? kPadding : head.key_bias ? head.key_bias[s] : 0.f;
    work.kept[s] = work.key_bias[s] > kNothing;
  }
}

void average_values(const Work& work) {
  const int width = work.words * 4;
  vi count = zero();
  for (int s = 0; s < work.padded_keys; s += 4) count = dot(count, broadcast4(work.kept + s), set(0x01010101));
  const vf inverse = div(setf(1.f), max(to_float(count), setf(1.f)));
  for (int c = 0; c < width; c += kLanes) {  // lanes beyond the width hold bytes of the next keys: nobody reads them
    vi sums = zero();
    for (int s = 0; s < work.padded_keys; s += 4)
      sums = dot(sums, broadcast4(work.kept + s), load(work.values + static_cast<size_t>(s) * width + c * 4));
    storef(work.mean + c, mul(to_float(sums), inverse));
  }
}

#if defined(OC_AVX512)
// x[w] lane i is word w of row i, from x[j] whose piece L is four words of row 4 * L + j; and the other way round.
OC_INLINE void transpose(vi* x) {
  vi a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
  vi c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
  x[0] = _mm512_unpacklo_epi64(a, c), x[1] = _mm512_unpackhi_epi64(a, c);
  x[2] = _mm512_unpacklo_epi64(b, d), x[3] = _mm512_unpackhi_epi64(b, d);
}
#endif

// V vectors of queries from `begin` on, as signed bytes; rows beyond `count` repeat the last one.
template <int V>
OC_INLINE void load_queries(const AttentionHead& head, const Work& work, int begin, int count) {
  const uint8_t* q = head.q + begin * head.stride;
  int word = 0;
#if defined(OC_AVX512)
  for (; word + 4 <= head.size / 4; word += 4)
    unroll<V>([&](auto v) OC_LAMBDA {
      auto row = [&](int r) OC_LAMBDA {
        const ptrdiff_t i = least(v * kLanes + r, count - 1);
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + i * head.stride + word * 4));
      };
      vi x[4];
      unroll<4>([&](auto j) OC_LAMBDA {
        x[j] = _mm512_inserti32x4(
            _mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(row(j)), row(4 + j), 1), row(8 + j), 2),
            row(12 + j), 3);
      });
      transpose(x);
      unroll<4>([&](auto j) OC_LAMBDA {
        store(work.queries + ((word + j) * V + v) * kLanes * 4,
              _mm512_xor_si512(x[j], _mm512_set1_epi8(static_cast<char>(128))));
      });
    });
#endif
  for (; word < work.words; word++)
    for (int i = 0; i < V * kLanes; i++) {
      const uint8_t* from = q + least(i, count - 1) * head.stride;
      for (int b = 0; b < 4; b++) {
        const int c = word * 4 + b;
        work.queries[(word * V * kLanes + i) * 4 + b] = c < head.size ? from[c] ^ 128 : 0;
      }
    }
}

// The mask of a block's queries, its lanes the queries.
template <int V>
void load_mask(const AttentionHead& head, const Work& work, int begin, int count) {
  constexpr int kTile = 16;  // of keys: their vectors stay in the first cache while the rows are written into them
  for (int s0 = 0; s0 < work.padded_keys; s0 += kTile) {
    const int end = least(s0 + kTile, head.keys);
    for (int i = 0; i < V * kLanes; i++) {
      const float* from = head.mask + (begin + least(i, count - 1)) * head.mask_stride;
      float* to = work.mask + i;
      for (int s = s0; s < end; s++)
        to[static_cast<size_t>(s) * V * kLanes] = least(most(from[s], -kMostBias), kMostBias) * kLog2E;
      for (int s = most(end, s0); s < least(s0 + kTile, work.padded_keys); s++)
        to[static_cast<size_t>(s) * V * kLanes] = kPadding;
    }
  }
}

// Scaled scores of a block and, for each query, the greatest.
template <int V, bool kMask>
OC_INLINE void score(const Work& work, float scale, vf* greatest) {
  constexpr int kKeys = kSums / V;
  const int width = work.words * 4;
  const vf factor = setf(scale);
  unroll<V>([&](auto v) OC_LAMBDA { greatest[v] = setf(kPadding); });
  for (int s = 0; s < work.padded_keys; s += kKeys) {
    vi sums[kKeys * V];
    unroll<kKeys * V>([&](auto i) OC_LAMBDA { sums[i] = zero(); });
    const uint8_t *k = work.keys + static_cast<size_t>(s) * width, *q = work.queries;
    for (int word = 0; word < work.words; word++, k += 4, q += V * kLanes * 4) {
      vi x[V];
      unroll<V>([&](auto v) OC_LAMBDA { x[v] = load(q + v * kLanes * 4); });
      unroll<kKeys>([&](auto j) OC_LAMBDA {
        vi key = broadcast4(k + static_cast<ptrdiff_t>(j) * width);
        unroll<V>([&](auto v) OC_LAMBDA { sums[j * V + v] = dot(sums[j * V + v], key, x[v]); });
      });
    }
    unroll<kKeys * V>([&](auto i) OC_LAMBDA {
      constexpr int j = i / V, v = i % V;
      const size_t at = (static_cast<size_t>(s + j) * V + v) * kLanes;
      vf x = fma(to_float(sums[i]), factor, kMask ? loadf(work.mask + at) : setf(work.key_bias[s + j]));
      storef(work.scores + at, x);
      greatest[v] = max(greatest[v], x);
    });
  }
}

// 255 * 2^x for x <= 0, with a relative error of 7.5e-5: a polynomial of degree 3 for the fraction, of least greatest
// relative error.
OC_INLINE vf chance(vf x) {
#if defined(OC_AVX512)
  vf f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  vf p = fma(setf(255 * 0.07802451f), f, setf(255 * 0.22606718f));
  p = fma(fma(p, f, setf(255 * 0.69583353f)), f, setf(255 * 0.99992522f));
  return _mm512_scalef_ps(p, x);  // times 2^floor(x)
#else
  x = max(x, setf(-40.f));
  vf n = round(x), f = sub(x, n);
  vf p = fma(setf(255 * 0.05517166f), f, setf(255 * 0.24261112f));
  p = fma(fma(p, f, setf(255 * 0.69326099f)), f, setf(255 * 0.99992807f));
  return scale2(p, n);
#endif
}

// One byte of each of four vectors, saturated to [0, 255], side by side in every lane.
OC_INLINE vi join(const vi* x) {
#if defined(OC_AVX512)
  const vi order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return _mm512_shuffle_epi8(_mm512_packus_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3])),
                             order);
#elif defined(OC_AVX2)
  const vi order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return _mm256_shuffle_epi8(_mm256_packus_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3])),
                             order);
#else
  vi r = zero();
  unroll<4>([&](auto j) OC_LAMBDA { r |= maxi(x[j] > 255 ? set(255) : x[j], zero()) << (8 * j); });
  return r;
#endif
}

// Probabilities of a block from its scores, their sums, and those of the bytes that they are rounded to.
template <int V>
OC_INLINE void softmax(const Work& work, const vf* greatest, vf* sums, vi* byte_sums) {
  unroll<V>([&](auto v) OC_LAMBDA { sums[v] = setf(0), byte_sums[v] = zero(); });
  const vi ones = set(0x01010101);
  for (int s = 0; s < work.padded_keys; s += 4)
    unroll<V>([&](auto v) OC_LAMBDA {
      vi x[4];
      unroll<4>([&](auto j) OC_LAMBDA {
        vf p = chance(sub(loadf(work.scores + (static_cast<size_t>(s + j) * V + v) * kLanes), greatest[v]));
        sums[v] = add(sums[v], p);
        x[j] = to_int(p);
      });
      vi four = join(x);
      store(work.chances + (static_cast<size_t>(s) * V + v * 4) * kLanes, four);
      byte_sums[v] = dot(byte_sums[v], four, ones);
    });
}

// `kChannels` channels from `channel` on of the sum of v by probabilities, plus `rest` times the mean of v, times
// `inverse`: into work.result.
template <int V, int kChannels>
OC_INLINE void weigh(const AttentionHead& head, const Work& work, const vf* rest, const vf* inverse, int channel) {
  vi sums[kChannels * V];
  unroll<kChannels * V>([&](auto i) OC_LAMBDA { sums[i] = zero(); });
  const int8_t* w = work.values + channel * 4;
  const uint8_t* p = work.chances;
  for (int s = 0; s < work.padded_keys; s += 4, w += work.words * 16, p += V * kLanes * 4) {
    vi x[V];
    unroll<V>([&](auto v) OC_LAMBDA { x[v] = load(p + v * kLanes * 4); });
    unroll<kChannels>([&](auto j) OC_LAMBDA {
      vi value = broadcast4(w + j * 4);
      unroll<V>([&](auto v) OC_LAMBDA { sums[j * V + v] = dot(sums[j * V + v], x[v], value); });
    });
  }
  unroll<kChannels / 4 * V>([&](auto i) OC_LAMBDA {
    constexpr int g = i / V, v = i % V;
    vi x[4];
    unroll<4>([&](auto j) OC_LAMBDA {
      const int c = channel + g * 4 + j;
      const vf sum = fma(setf(work.mean[c]), rest[v], to_float(sums[(g * 4 + j) * V + v]));
      const vf y = fma(mul(sum, inverse[v]), setf(head.value_scale[least(c, head.size - 1)]), setf(head.zero_point));
      x[j] = to_int(min(y, setf(65536.f)));  // beyond int32 the conversion would give its least number
    });
    store(work.result + ((channel / 4 + g) * V + v) * kLanes * 4, join(x));
  });
}

template <int V>
OC_INLINE void store_result(const AttentionHead& head, const Work& work, int begin, int count) {
  uint8_t* y = head.y + begin * head.y_stride;
  int word = 0;
#if defined(OC_AVX512)
  for (; word + 4 <= head.size / 4; word += 4)
    unroll<V>([&](auto v) OC_LAMBDA {
      vi x[4];
      unroll<4>([&](auto j) OC_LAMBDA { x[j] = load(work.result + ((word + j) * V + v) * kLanes * 4); });
      transpose(x);
      unroll<16>([&](auto r) OC_LAMBDA {
        if (v * kLanes + r < count)
          _mm_storeu_si128(reinterpret_cast<__m128i*>(y + (v * kLanes + r) * head.y_stride + word * 4),
                           _mm512_extracti32x4_epi32(x[r % 4], r / 4));
      });
    });
#endif
  for (; word < work.words; word++)
    for (int i = 0; i < count; i++)
      for (int c = word * 4; c < least(word * 4 + 4, head.size); c++)
        y[i * head.y_stride + c] = work.result[(word * V * kLanes + i) * 4 + c % 4];
}

template <int V, bool kMask>
__attribute__((noinline)) void attend(const AttentionHead& head, const Work& work, int begin, int count) {
  load_queries<V>(head, work, begin, count);
  if (kMask) load_mask<V>(head, work, begin, count);
  vf greatest[V], sums[V], rest[V], inverse[V];
  vi byte_sums[V];
  score<V, kMask>(work, head.scale, greatest);
  softmax<V>(work, greatest, sums, byte_sums);
  unroll<V>([&](auto v) OC_LAMBDA {
    // With a mask the mean over all keys is not that of those which a query attends to: only the bytes count.
    rest[v] = kMask ? setf(0) : sub(sums[v], to_float(byte_sums[v]));
    inverse[v] = div(setf(1.f), kMask ? to_float(byte_sums[v]) : sums[v]);
  });
  constexpr int kChannels = kSums / V;
  const int width = work.words * 4;
  int channel = 0;
  for (; channel + kChannels <= width; channel += kChannels) weigh<V, kChannels>(head, work, rest, inverse, channel);
  for (; channel < width; channel += 4) weigh<V, 4>(head, work, rest, inverse, channel);
  store_result<V>(head, work, begin, count);
}

template <bool kMask>
void run_blocks(const AttentionHead& head, const Work& work, int begin, int end) {
  for (; end - begin > kLanes; begin += 2 * kLanes)
    attend<2, kMask>(head, work, begin, least(end - begin, 2 * kLanes));
  if (begin < end) attend<1, kMask>(head, work, begin, end - begin);
}

void run(const AttentionHead& head, int begin, int end, uint8_t* memory) {
  Work work;
  carve(work, memory, head.keys, head.size, head.mask);
  pack_keys(head, work);
  pack_values(head, work);
  bias_keys(head, work);
  average_values(work);
  if (head.mask) run_blocks<true>(head, work, begin, end);
  else run_blocks<false>(head, work, begin, end);
}

}  // namespace

extern const AttentionKernels attention = {scratch, run};

}  // namespace oc::OC_ISA
