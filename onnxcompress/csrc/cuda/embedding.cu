// Embeddings of tokens and their normalization: a block has a token. The sum is not stored; the passes over it gather
// its terms anew, from cache.
#include "cuda/embedding.hpp"

#include <algorithm>

#include "cuda/epilogue.hpp"
#include "cuda/reduce.hpp"
#include "cuda/together.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 128, kWidth = 4, kSpan = kThreads * kWidth;
constexpr float kLeastScale = 1e-12f;  // LEAST_SCALE of row_quantization.py

using Values = float[kWidth];

// Row of a token; -1: none of `rows`.
__device__ __forceinline__ int64_t row_of(const TokenIds& ids, int64_t token, int64_t rows) {
  const int64_t at = token % ids.count;
  const int64_t id =
      ids.narrow ? static_cast<const int32_t*>(ids.values)[at] : static_cast<const int64_t*>(ids.values)[at];
  return id >= 0 && id < rows ? id : -1;
}

// Adds `count` bytes by their scale.
__device__ __forceinline__ void add_bytes(const int8_t* from, float scale, Values& values, int count) {
  if (is_together<kWidth>(from, count)) {
    const auto four = *reinterpret_cast<const Together<int8_t, kWidth>*>(from);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] += static_cast<float>(four.values[i]) * scale;
    return;
  }
  for (int i = 0; i < min(count, kWidth); ++i) values[i] += static_cast<float>(from[i]) * scale;
}

__device__ __forceinline__ void add_floats(const float* from, Values& values, int count) {
  Values more;
  load_together(from, more, count);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) values[i] += more[i];
}

// The rows that one token's sum is made of; null: no such term.
struct Terms {
  const int8_t *word = nullptr, *position_bytes = nullptr;
  const float *type = nullptr, *position = nullptr;
  float word_scale = 0, position_scale = 0;

  __device__ __forceinline__ Terms(const EmbedNorm& e, int64_t token) {
    const int64_t id = row_of(e.ids, token, e.words), of_type = e.type_table ? row_of(e.type_ids, token, e.types) : 0;
    int64_t place = e.position_offset + token % e.length;
    if (e.position_ids.values) place = row_of(e.position_ids, token, e.positions);
    if (id < 0 || of_type < 0 || place < 0) return;  // no word
    word = e.word_table + id * e.channels, word_scale = e.word_scale[id];
    if (e.type_table) type = e.type_table + of_type * e.channels;
    if (e.position_table) position = e.position_table + place * e.channels;
    if (!e.position_bytes) return;
    position_bytes = e.position_bytes + place * e.channels, position_scale = e.position_scale[place];
  }

  __device__ __forceinline__ void sum(int column, Values& values, int count) const {
    const float first = word ? 0.f : __int_as_float(0x7fc00000);  // not a number
#pragma unroll
    for (float& value : values) value = first;
    if (word) add_bytes(word + column, word_scale, values, count);
    if (type) add_floats(type + column, values, count);
    if (position) add_floats(position + column, values, count);
    if (position_bytes) add_bytes(position_bytes + column, position_scale, values, count);
  }
};

__global__ void __launch_bounds__(kThreads) embed_norm_kernel(EmbedNorm e) {
  const float per_channel = 1.f / static_cast<float>(e.channels);
  for (int64_t token = blockIdx.x; token < e.tokens; token += gridDim.x) {
    const Terms terms(e, token);
    // visit(column, count, s) for this thread's columns.
    const auto each = [&](auto visit) {
      for (int column = static_cast<int>(threadIdx.x) * kWidth; column < e.channels; column += kSpan) {
        Values s;
        const int count = e.channels - column;
        terms.sum(column, s, count);
        visit(column, count, s);
      }
    };

    float sum = 0;
    each([&](int, int, const Values& s) {
      for (int i = 0; i < kWidth; ++i) sum += s[i];
    });
    const float mean = reduce_block<kThreads>(sum, Sum()) * per_channel;

    float squares = 0;
    each([&](int, int count, const Values& s) {
      for (int i = 0; i < kWidth; ++i) {
        const float centred = i < count ? s[i] - mean : 0.f;
        squares += centred * centred;
      }
    });
    const float variance = reduce_block<kThreads>(squares, Sum()) * per_channel;
    const float inverse_deviation = 1.f / sqrtf(variance + e.epsilon);

    // y of these columns, then what its bytes are made of.
    const auto normalize = [&](int column, int count, Values& s) {
      Values gamma, beta;
      load_together(e.gamma + column, gamma, count);
      load_together(e.beta + column, beta, count);
      for (int i = 0; i < kWidth; ++i) s[i] = (s[i] - mean) * inverse_deviation * gamma[i] + beta[i];
    };
    const auto scale = [&](int column, int count, Values& y) {
      Values inverse = {e.q_inverse, e.q_inverse, e.q_inverse, e.q_inverse};
      if (e.q_inverse_vector) load_together(e.q_inverse_vector + column, inverse, count);
      for (int i = 0; i < kWidth; ++i) y[i] *= inverse[i];
    };
    const auto store_q = [&](int column, int count, const Values& scaled, float inverse, int zero) {
      uint8_t bytes[kWidth];
      for (int i = 0; i < kWidth; ++i) bytes[i] = requantize(scaled[i], inverse, zero);
      store_together(e.q + token * e.channels + column, bytes, count);
    };

    float low = 0, high = 0;
    each([&](int column, int count, Values& s) {
      normalize(column, count, s);
      if (e.y) store_together(e.y + token * e.channels + column, s, count);
      if (!e.q && !e.dynamic) return;
      scale(column, count, s);
      if (!e.dynamic) return store_q(column, count, s, 1.f, e.q_zero);
      for (const float value : s) low = fminf(low, value), high = fmaxf(high, value);  // beyond the row: 0
    });
    if (!e.dynamic) continue;

    low = reduce_block<kThreads>(low, Least()), high = reduce_block<kThreads>(high, Greatest());
    const float row_scale = fmaxf((high - low) * (1.f / 255), kLeastScale);
    const int zero = requantize(-low, 1.f / row_scale, 0);
    if (threadIdx.x == 0 && e.row_scale) e.row_scale[token] = row_scale;
    if (threadIdx.x == 0 && e.row_zero) e.row_zero[token] = static_cast<uint8_t>(zero);
    if (!e.q) continue;
    each([&](int column, int count, Values& s) {
      normalize(column, count, s);
      scale(column, count, s);
      store_q(column, count, s, 1.f / row_scale, zero);
    });
  }
}

}  // namespace

void embed_norm(const EmbedNorm& arguments, void* stream) {
  if (arguments.tokens <= 0) return;
  constexpr int64_t kMostBlocks = 1 << 20;  // the rest of the tokens by the same blocks
  const auto blocks = static_cast<unsigned>(std::min(arguments.tokens, kMostBlocks));
  OC_LAUNCH(embed_norm_kernel, dim3(blocks), dim3(kThreads), 0, stream, arguments);
}

}  // namespace oc::cuda
