#include "cuda/pool.hpp"

#include <algorithm>

#include "cuda/epilogue.hpp"
#include "cuda/table_bytes.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256;

// The byte of the mean of `count` values, `valid` of which are in `sum`; the others are x_zero.
__device__ __forceinline__ uint8_t mean_byte(const PoolScale& scale, int sum, int valid, float count) {
  return requantize(static_cast<float>(sum - valid * scale.x_zero) * (scale.ratio / count), 1.f, scale.y_zero);
}

// What a window has of an axis: its values in the image, and their number with the padding.
struct Span {
  int64_t begin, end;
  int padded;
};

__device__ __forceinline__ Span span_of(const PoolAxis& axis, int64_t window) {
  const int64_t begin = window * axis.stride - axis.before, end = begin + axis.kernel;
  return {max(begin, int64_t{0}), min(end, axis.size), static_cast<int>(min(end, axis.size + axis.after) - begin)};
}

// fn(kCount channels of a pixel) for every pixel of the image in the window.
template <int kCount, class Fn>
__device__ __forceinline__ void for_window(const Pool& p, int64_t image, const Span& rows, const Span& columns,
                                           int64_t channel, Fn fn) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const uint8_t* from =
        p.x + ((image * p.down.size + row) * p.across.size + columns.begin) * p.channels + channel;
#pragma unroll 4
    for (int64_t column = columns.begin; column < columns.end; ++column, from += p.channels) {
      fn(load_bytes<kCount>(from));
    }
  }
}

template <int kCount>
__device__ __forceinline__ Bytes<kCount> greatest(const Pool& p, int64_t image, const Span& rows, const Span& columns,
                                                  int64_t channel) {
  Bytes<kCount> most{};
  for_window<kCount>(p, image, rows, columns, channel, [&](const Bytes<kCount>& x) {
#pragma unroll
    for (int i = 0; i < Bytes<kCount>::kWords; ++i) most.words[i] = __vmaxu4(most.words[i], x.words[i]);
  });
  return most;
}

template <int kCount>
__device__ __forceinline__ Bytes<kCount> mean(const Pool& p, int64_t image, const Span& rows, const Span& columns,
                                              int64_t channel) {
  unsigned sums[kCount] = {};
  for_window<kCount>(p, image, rows, columns, channel, [&](const Bytes<kCount>& x) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[i] = __dp4a(x.words[i / 4], 1u << i % 4 * 8, sums[i]);
  });
  const int valid = static_cast<int>((rows.end - rows.begin) * (columns.end - columns.begin));
  const float count = static_cast<float>(p.include_pad ? rows.padded * columns.padded : valid);
  Bytes<kCount> means{};
#pragma unroll
  for (int i = 0; i < kCount; ++i) means.add(i, mean_byte(p.scale, static_cast<int>(sums[i]), valid, count));
  return means;
}

// kCount channels of one window to a thread, neighbouring channels in neighbouring threads.
template <int kCount, bool kAverage>
__global__ void __launch_bounds__(kThreads) pool_kernel(Pool p) {
  __shared__ ByteTable table;
  load_table(table, p.table);
  __syncthreads();
  const int64_t runs = p.channels / kCount, at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t window = at / runs, channel = (at - window * runs) * kCount;
  const int64_t line = window / p.across.windows, image = line / p.down.windows;
  if (image >= p.images) return;
  const Span rows = span_of(p.down, line - image * p.down.windows);
  const Span columns = span_of(p.across, window - line * p.across.windows);
  Bytes<kCount> y = kAverage ? mean<kCount>(p, image, rows, columns, channel)
                             : greatest<kCount>(p, image, rows, columns, channel);
  if (p.table) y = look_up(table, y);
  store_bytes(p.y + window * p.channels + channel, y);
}

template <int kCount>
void launch_pool(const Pool& p, int64_t results, void* stream) {
  const dim3 grid(blocks_of(results / kCount, kThreads)), block(kThreads);
  if (p.average) OC_LAUNCH((pool_kernel<kCount, true>), grid, block, 0, stream, p);
  else OC_LAUNCH((pool_kernel<kCount, false>), grid, block, 0, stream, p);
}

// Channel sums: a thread has four channels of every so-many-th pixel; a block, up to 128 channels of a part.
constexpr int kOfThread = 4, kMostLanes = 32;

struct SumsPlan {
  int log_lanes;          // threads side by side along the channels
  int64_t channel_tiles;  // blocks side by side
  int64_t part_pixels;
};

SumsPlan plan_of(int64_t pixels, int64_t channels, int64_t parts) {
  int log_lanes = 0;
  while (1 << log_lanes < kMostLanes && int64_t{kOfThread} << log_lanes < channels) ++log_lanes;
  const int64_t tile = int64_t{kOfThread} << log_lanes;
  return {log_lanes, (channels + tile - 1) / tile, (pixels + parts - 1) / parts};
}

// The mean of an image's channel, from the sum of all of it.
__device__ __forceinline__ void store_mean(const GlobalPool& p, int64_t image, int64_t channel, int sum) {
  const int pixels = static_cast<int>(p.sums.pixels);
  const uint8_t y = mean_byte(p.scale, sum, pixels, static_cast<float>(pixels));
  p.y[image * p.sums.channels + channel] = p.table ? p.table[y] : y;
}

// With kMeans for images of one part, whose sums go no further.
template <bool kMeans>
__global__ void __launch_bounds__(kThreads) channel_sums_kernel(GlobalPool p, SumsPlan plan) {
  __shared__ ByteTable table;
  __shared__ uint32_t sums[kOfThread][kThreads];
  const ChannelSums& s = p.sums;
  load_table(table, s.table);
  __syncthreads();
  const int64_t block = blockIdx.x, part = block / plan.channel_tiles, image = part / s.parts;
  const int thread = static_cast<int>(threadIdx.x), lanes = 1 << plan.log_lanes, rows = kThreads >> plan.log_lanes;
  const int row = thread >> plan.log_lanes;
  const int64_t channel = ((block - part * plan.channel_tiles) * lanes + (thread & (lanes - 1))) * kOfThread;
  const int64_t left = s.channels - channel;
  const bool whole = s.channels % kOfThread == 0;
  const int64_t begin = (part - image * s.parts) * plan.part_pixels, end = min(begin + plan.part_pixels, s.pixels);
  uint32_t mine[kOfThread] = {};
  if (left > 0) {
#pragma unroll 4
    for (int64_t pixel = begin + row; pixel < end; pixel += rows) {
      const uint8_t* from = s.x + (image * s.pixels + pixel) * s.channels + channel;
      Bytes<kOfThread> x = whole ? load_bytes<kOfThread>(from) : load_each<kOfThread>(from, left);
      if (s.table) x = look_up(table, x);
#pragma unroll
      for (int i = 0; i < kOfThread; ++i) mine[i] = __dp4a(x.words[0], 1u << i * 8, mine[i]);
    }
  }
  // The upper half of the rows to the lower; what one step writes, the step before it does not read.
  for (int others = rows / 2; others > 0; others /= 2) {
    if (row >= others && row < 2 * others) {
#pragma unroll
      for (int i = 0; i < kOfThread; ++i) sums[i][thread] = mine[i];
    }
    __syncthreads();
    if (row < others) {
#pragma unroll
      for (int i = 0; i < kOfThread; ++i) mine[i] += sums[i][thread + others * lanes];
    }
  }
  if (row > 0) return;
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    if (i >= left) return;
    const int sum = static_cast<int>(mine[i]);
    if constexpr (kMeans) store_mean(p, image, channel + i, sum);
    else s.sums[part * s.channels + channel + i] = sum;
  }
}

// A thread to a channel of an image.
__global__ void __launch_bounds__(kThreads) means_kernel(GlobalPool p) {
  const ChannelSums& s = p.sums;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, image = at / s.channels;
  if (image >= s.images) return;
  const int64_t channel = at - image * s.channels;
  int sum = 0;
  for (int64_t part = 0; part < s.parts; ++part) sum += s.sums[(image * s.parts + part) * s.channels + channel];
  store_mean(p, image, channel, sum);
}

template <bool kMeans>
void launch_sums(const GlobalPool& p, void* stream) {
  const SumsPlan plan = plan_of(p.sums.pixels, p.sums.channels, p.sums.parts);
  OC_LAUNCH(channel_sums_kernel<kMeans>, dim3(blocks_of(p.sums.images * p.sums.parts * plan.channel_tiles, 1)),
            dim3(kThreads), 0, stream, p, plan);
}

}  // namespace

void pool(const Pool& arguments, void* stream) {
  const int64_t c = arguments.channels,
                results = arguments.images * arguments.down.windows * arguments.across.windows * c;
  if (results == 0) return;
  // Wide loads where there are threads enough without: a window's loads come one after another.
  constexpr int64_t kManyThreads = 1 << 15;
  if (c % 16 == 0 && results / 16 >= kManyThreads) launch_pool<16>(arguments, results, stream);
  else if (c % 4 == 0) launch_pool<4>(arguments, results, stream);
  else launch_pool<1>(arguments, results, stream);
}

int64_t parts_of_image(int64_t images, int64_t pixels, int64_t channels, int multiprocessors) {
  constexpr int64_t kPixelsOfThread = 8, kBlocksOfMultiprocessor = 4;
  if (images == 0 || pixels == 0 || channels == 0) return 1;
  const SumsPlan plan = plan_of(pixels, channels, 1);
  const int64_t most = std::max<int64_t>(1, (pixels << plan.log_lanes) / (kPixelsOfThread * kThreads));
  const int64_t wanted = kBlocksOfMultiprocessor * multiprocessors / (images * plan.channel_tiles);
  return std::clamp<int64_t>(wanted, 1, most);
}

void channel_sums(const ChannelSums& arguments, void* stream) {
  if (arguments.images * arguments.channels == 0) return;
  GlobalPool p;
  p.sums = arguments;
  launch_sums<false>(p, stream);
}

void global_pool(const GlobalPool& arguments, void* stream) {
  const ChannelSums& s = arguments.sums;
  if (s.images * s.channels == 0) return;
  if (s.parts == 1) return launch_sums<true>(arguments, stream);
  launch_sums<false>(arguments, stream);
  OC_LAUNCH(means_kernel, dim3(blocks_of(s.images * s.channels, kThreads)), dim3(kThreads), 0, stream, arguments);
}

}  // namespace oc::cuda
