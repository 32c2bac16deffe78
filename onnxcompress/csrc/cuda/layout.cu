// A block transposes a tile of about 2048 bytes through shared memory: up to 32 channels, and as many pixels as that
// leaves. Floats are read and written along the pixels, 128 bytes of a plane to a warp at least; bytes along the
// channels, in words where whole words are there. A tile is padded so that words of a column of it, which a warp
// visits one after another, lie in different banks.
#include "cuda/layout.hpp"

#include "cuda/epilogue.hpp"
#include "cuda/table_bytes.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256, kMostChannels = 32, kTileBytes = 2048;
constexpr int kSharedBytes = kTileBytes / 8 * (8 + 4);  // of 8 channels, where padding is the most of a pixel

struct Tiling {
  int64_t pixels, channels;
  int64_t pixel_tiles, channel_tiles;  // of an image
  int64_t tiles;                       // of all images
  int tile_channels, log_pixels;       // most channels of a tile; its pixels are a power of two, at least 32
  int pitch;                           // bytes from pixel to pixel in shared memory
  bool dense;                          // a tile's bytes are one run, here and there
  int together;                        // bytes that are moved at once: 1 or 4
};

Tiling tiling_of(int64_t images, int64_t pixels, int64_t channels) {
  Tiling t{};
  t.pixels = pixels, t.channels = channels;
  t.tile_channels = channels < kMostChannels ? static_cast<int>(channels) : kMostChannels;
  while (t.tile_channels << (t.log_pixels + 1) <= kTileBytes) ++t.log_pixels;
  t.pitch = t.tile_channels / 4 % 2 || t.tile_channels % 4 ? t.tile_channels : t.tile_channels + 4;
  t.dense = t.pitch == channels && pixels * channels % 4 == 0;
  t.together = channels % 4 == 0 || t.dense ? 4 : 1;
  t.pixel_tiles = (pixels + (int64_t{1} << t.log_pixels) - 1) >> t.log_pixels;
  t.channel_tiles = (channels + t.tile_channels - 1) / t.tile_channels;
  t.tiles = images * t.pixel_tiles * t.channel_tiles;
  return t;
}

// In shared memory.
struct alignas(4) TileBytes {
  uint8_t values[kSharedBytes];
};

// This block's part.
struct Tile {
  int64_t first_float;  // of its first channel and pixel, with channels outermost
  int64_t first_byte;   // and with channels innermost
  int channels, pixels;
};

__device__ __forceinline__ Tile tile_of(const Tiling& t) {
  const int64_t block = blockIdx.x, tile = block / t.channel_tiles, image = tile / t.pixel_tiles;
  const int64_t channel = (block - tile * t.channel_tiles) * t.tile_channels;
  const int64_t pixel = (tile - image * t.pixel_tiles) << t.log_pixels;
  return {(image * t.channels + channel) * t.pixels + pixel, (image * t.pixels + pixel) * t.channels + channel,
          static_cast<int>(min(t.channels - channel, static_cast<int64_t>(t.tile_channels))),
          static_cast<int>(min(t.pixels - pixel, int64_t{1} << t.log_pixels))};
}

// fn(index in floats, index in shared memory) for every value of the tile, neighbouring pixels in neighbouring threads.
template <class Fn>
__device__ __forceinline__ void along_pixels(const Tiling& t, const Tile& tile, Fn fn) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < tile.channels << t.log_pixels; i += kThreads) {
    const int channel = i >> t.log_pixels, pixel = i & ((1 << t.log_pixels) - 1);
    if (pixel < tile.pixels) fn(tile.first_float + channel * t.pixels + pixel, pixel * t.pitch + channel);
  }
}

// fn(index in bytes, index in shared memory) for every run of kCount channels.
template <int kCount, class Fn>
__device__ __forceinline__ void along_channels(const Tiling& t, const Tile& tile, Fn fn) {
  const int lines = t.dense ? 1 : tile.pixels, runs = tile.channels * (t.dense ? tile.pixels : 1) / kCount;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < runs * lines; i += kThreads) {
    const int pixel = i / runs, channel = (i - pixel * runs) * kCount;
    fn(tile.first_byte + pixel * t.channels + channel, pixel * t.pitch + channel);
  }
}

__global__ void __launch_bounds__(kThreads) quantize_layout_kernel(QuantizeLayout q, Tiling t) {
  __shared__ TileBytes bytes;
  const Tile tile = tile_of(t);
  along_pixels(t, tile,
               [&](int64_t from, int to) { bytes.values[to] = requantize(q.x[from] / q.scale, 1.f, q.zero); });
  __syncthreads();
  if (t.together == 4) {
    along_channels<4>(t, tile,
                      [&](int64_t to, int from) { store_bytes(q.y + to, load_bytes<4>(bytes.values + from)); });
  } else {
    along_channels<1>(t, tile, [&](int64_t to, int from) { q.y[to] = bytes.values[from]; });
  }
}

template <bool kValues>
__global__ void __launch_bounds__(kThreads) dequantize_layout_kernel(DequantizeLayout d, Tiling t) {
  __shared__ TileBytes bytes;
  __shared__ float values[kValues ? kTableBytes : 1];
  const Tile tile = tile_of(t);
  if constexpr (kValues) values[threadIdx.x] = d.values[threadIdx.x];
  if (t.together == 4) {
    along_channels<4>(t, tile,
                      [&](int64_t from, int to) { store_bytes(bytes.values + to, load_bytes<4>(d.x + from)); });
  } else {
    along_channels<1>(t, tile, [&](int64_t from, int to) { bytes.values[to] = d.x[from]; });
  }
  __syncthreads();
  along_pixels(t, tile, [&](int64_t to, int from) {
    if constexpr (kValues) d.y[to] = values[bytes.values[from]];
    else d.y[to] = static_cast<float>(bytes.values[from] - d.zero) * d.scale;
  });
}

static_assert(kThreads == kTableBytes);

}  // namespace

void quantize_channels_last(const QuantizeLayout& arguments, void* stream) {
  if (arguments.images * arguments.pixels * arguments.channels == 0) return;
  const Tiling t = tiling_of(arguments.images, arguments.pixels, arguments.channels);
  OC_LAUNCH(quantize_layout_kernel, dim3(blocks_of(t.tiles, 1)), dim3(kThreads), 0, stream, arguments, t);
}

void dequantize_channels_first(const DequantizeLayout& arguments, void* stream) {
  if (arguments.images * arguments.pixels * arguments.channels == 0) return;
  const Tiling t = tiling_of(arguments.images, arguments.pixels, arguments.channels);
  const dim3 grid(blocks_of(t.tiles, 1)), block(kThreads);
  if (arguments.values) OC_LAUNCH(dequantize_layout_kernel<true>, grid, block, 0, stream, arguments, t);
  else OC_LAUNCH(dequantize_layout_kernel<false>, grid, block, 0, stream, arguments, t);
}

}  // namespace oc::cuda
