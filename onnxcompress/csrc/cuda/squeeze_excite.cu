// Three steps: sums of the channels, by many blocks to an image; the two layers, by one block to an image, which are
// small and would cost more as launches; and the product, which reads x again, in part from the cache.
#include "cuda/squeeze_excite.hpp"

#include "cuda/activate.hpp"
#include "cuda/elementwise.hpp"
#include "cuda/pool.hpp"
#include "cuda/table_bytes.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 512, kWarp = 32, kOfWord = 4;
constexpr int kMostShared = 48 << 10;

// What lies in the scratch, one behind the other, each aligned to 16 bytes.
struct Scratch {
  int32_t* sums;   // [images][parts][channels]
  float* gates;    // [images][channels]
  float* between;  // [images][padded + hidden], where shared memory has no room for that
};

constexpr size_t aligned(size_t bytes) { return (bytes + 15) / 16 * 16; }

size_t between_floats(const SqueezeExcite& s) {
  return aligned((static_cast<size_t>(padded_channels(s.channels)) + s.hidden) * sizeof(float)) / sizeof(float);
}
bool is_shared(const SqueezeExcite& s) { return between_floats(s) * sizeof(float) <= kMostShared; }

size_t sums_bytes(const SqueezeExcite& s) { return aligned(s.images * s.parts * s.channels * sizeof(int32_t)); }
size_t gates_bytes(const SqueezeExcite& s) { return aligned(s.images * s.channels * sizeof(float)); }

Scratch scratch_of(const SqueezeExcite& s) {
  auto* at = static_cast<unsigned char*>(s.scratch);
  auto *gates = at + sums_bytes(s), *between = gates + gates_bytes(s);
  return {reinterpret_cast<int32_t*>(at), reinterpret_cast<float*>(gates),
          is_shared(s) ? nullptr : reinterpret_cast<float*>(between)};
}

// The mean of a channel in real units. The integers are exact: only the quotient is rounded.
__device__ __forceinline__ float mean_of(const SqueezeExcite& s, const int32_t* sums, int channel) {
  int64_t sum = -s.pixels * s.x_zero;
  for (int64_t part = 0; part < s.parts; ++part) sum += sums[part * s.channels + channel];
  return static_cast<float>(sum) / static_cast<float>(s.pixels) * s.x_scale;
}

__device__ __forceinline__ float weight_of(uint32_t four, int i) {
  return static_cast<float>(static_cast<int8_t>(four >> i * 8));
}

// A value of the hidden layer, by a warp; in all lanes.
__device__ __forceinline__ float hidden_sum(const SqueezeExcite& s, const float* mean, int value, int lane) {
  const int words = padded_channels(s.channels) / kOfWord;
  const auto* weights = reinterpret_cast<const uint32_t*>(s.w1) + static_cast<int64_t>(value) * words;
  float sum = 0;
  for (int word = lane; word < words; word += kWarp) {
    const uint32_t four = weights[word];
    const float4 of = reinterpret_cast<const float4*>(mean)[word];
    sum = fmaf(weight_of(four, 0), of.x, sum), sum = fmaf(weight_of(four, 1), of.y, sum);
    sum = fmaf(weight_of(four, 2), of.z, sum), sum = fmaf(weight_of(four, 3), of.w, sum);
  }
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  return sum;
}

// The gates of four channels, by a thread.
__device__ __forceinline__ void store_gates(const SqueezeExcite& s, const float* hidden, int word, float* gates) {
  const int words = padded_channels(s.channels) / kOfWord;
  const auto* weights = reinterpret_cast<const uint32_t*>(s.w2) + word;
  float sums[kOfWord] = {};
#pragma unroll 4
  for (int value = 0; value < s.hidden; ++value) {
    const uint32_t four = weights[static_cast<int64_t>(value) * words];
    const float of = hidden[value];
#pragma unroll
    for (int i = 0; i < kOfWord; ++i) sums[i] = fmaf(weight_of(four, i), of, sums[i]);
  }
#pragma unroll
  for (int i = 0; i < kOfWord; ++i) {
    const int channel = word * kOfWord + i;
    if (channel >= s.channels) return;
    const float logit = fmaf(sums[i], s.w2_scale[channel], s.b2[channel]);
    const float gate = s.sigmoid ? times_sigmoid(1.f, logit) : __saturatef(fmaf(s.alpha, logit, s.beta));
    gates[channel] = gate + s.residual;
  }
}

// A block to an image.
__global__ void __launch_bounds__(kThreads) gates_kernel(SqueezeExcite s, Scratch scratch, int64_t image_floats) {
  OC_DYNAMIC_SHARED(float, shared);
  const int64_t image = blockIdx.x;
  const int padded = padded_channels(s.channels), thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  float* mean = scratch.between ? scratch.between + image * image_floats : shared;
  float* hidden = mean + padded;
  const int32_t* sums = scratch.sums + image * s.parts * s.channels;
  for (int c = thread; c < padded; c += kThreads) mean[c] = c < s.channels ? mean_of(s, sums, c) : 0.f;
  __syncthreads();
  for (int value = thread / kWarp; value < s.hidden; value += kThreads / kWarp) {
    const float sum = hidden_sum(s, mean, value, lane);
    if (lane == 0) hidden[value] = activate(s.activation, fmaf(sum, s.w1_scale[value], s.b1[value]));
  }
  __syncthreads();
  for (int word = thread; word < padded / kOfWord; word += kThreads) {
    store_gates(s, hidden, word, scratch.gates + image * s.channels);
  }
}

}  // namespace

size_t squeeze_excite_scratch(const SqueezeExcite& s) {
  const size_t between = is_shared(s) ? 0 : s.images * between_floats(s) * sizeof(float);
  return sums_bytes(s) + gates_bytes(s) + between;
}

void squeeze_excite(const SqueezeExcite& s, void* stream) {
  if (s.images * s.pixels * s.channels == 0) return;
  const Scratch scratch = scratch_of(s);
  channel_sums({s.x, s.table, s.images, s.pixels, s.channels, s.parts, scratch.sums}, stream);
  const size_t floats = between_floats(s);
  OC_LAUNCH(gates_kernel, dim3(blocks_of(s.images, 1)), dim3(kThreads), is_shared(s) ? floats * sizeof(float) : 0,
            stream, s, scratch, floats);
  Elementwise e;
  e.operation = Operation::kMultiply;
  e.a = s.x, e.a_table = s.table, e.a_scale = s.x_scale, e.a_zero = s.x_zero, e.b_floats = scratch.gates;
  e.y = s.y, e.y_scale = s.y_scale, e.y_zero = s.y_zero;
  e.count = s.images * s.pixels * s.channels, e.channels = s.channels, e.image_pixels = s.pixels;
  elementwise(e, stream);
}

}  // namespace oc::cuda
