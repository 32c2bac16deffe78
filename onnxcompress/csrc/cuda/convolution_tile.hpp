// The tile of a convolution's block: its sizes, and how its operands come into shared memory.
#pragma once

#include "cuda/convolution.hpp"
#include "cuda/device.hpp"

namespace oc::cuda::convolution_tile {

constexpr int kStages = 3;

// A block's tile of pixels x channels, the part of it that is one warp's, and the blocks that shall share a
// multiprocessor. A stage is the input's 64 bytes a row, then the weights' 64 bytes a column.
template <int kRows_, int kColumns_, int kWarpRows_, int kWarpColumns_, int kBlocks_>
struct Tile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * 32;
  static constexpr int kInputBytes = kRows * kConvolutionDepth;
  static constexpr int kStageBytes = kInputBytes + kColumns * kConvolutionDepth;
  // A warp's slab of sums, 32 rows; writes of 4 rows of 8 columns and reads of a row of 32 meet no bank conflict.
  static constexpr int kSlabPitch = kWarpColumns + 8, kSlabSums = 32 * kSlabPitch;
  static_assert(kWarpColumns == 32 && kWarpRows % 32 == 0);
  static_assert(kThreads / 32 * kSlabSums * 4 <= kStageBytes * kStages);
};

constexpr int kChunks = kConvolutionDepth / 16;

// Brings windows into shared memory. A thread has the same 16 bytes of depth of every (threads / 4)th row, so that it
// looks its taps up once for all of its rows. Taps of 16 bytes go by cp.async; narrower ones (few channels) through
// registers: read by fetch(), written by store() after the product of the current stage.
template <class T, int kWidth>
class InputLoader {
 public:
  __device__ __forceinline__ InputLoader(const Convolution& c, int first_pixel, int group) {
    const int pixels_of_image = c.out_height * c.out_width;
    const int64_t image_bytes = int64_t{c.height} * c.width * c.channels;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int pixel = first_pixel + row(i), image = pixel / pixels_of_image;
      const int within = pixel - image * pixels_of_image, y = within / c.out_width;
      image_[i] = c.x + image * image_bytes + int64_t{group} * c.plan.channels;
      top_[i] = image < c.batch ? y * c.stride_y - c.top : kNowhere;
      left_[i] = (within - y * c.out_width) * c.stride_x - c.left;
    }
  }

  __device__ __forceinline__ void fetch(const Convolution& c, int step, uint8_t* stage) {
    const int first_tap = (step * kConvolutionDepth + chunk() * 16) / kWidth;
    const uint32_t zeros = static_cast<uint32_t>(c.epilogue.x_zero) * 0x01010101u;
#pragma unroll
    for (int i = 0; i < kRows; ++i) staged_[i] = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int piece = 0; piece < 16 / kWidth; ++piece) {
      const ConvolutionTap tap = c.taps[first_tap + piece];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int y = top_[i] + tap.dy, x = left_[i] + tap.dx;
        const bool inside = tap.channel >= 0 && static_cast<unsigned>(y) < static_cast<unsigned>(c.height) &&
                            static_cast<unsigned>(x) < static_cast<unsigned>(c.width);
        const uint8_t* const from = image_[i] + (inside ? (y * c.width + x) * c.channels + tap.channel : 0);
        if constexpr (kWidth == 16) {
          uint8_t* const to = stage + row(i) * kConvolutionDepth + chunk() * 16;
          if (inside) {
            copy_async16(to, from, true);
          } else {
            *reinterpret_cast<uint4*>(to) = make_uint4(zeros, zeros, zeros, zeros);
          }
        } else {
          insert(staged_[i], piece, from, inside, zeros);
        }
      }
    }
  }

  __device__ __forceinline__ void store(uint8_t* stage) const {
    if constexpr (kWidth < 16) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        *reinterpret_cast<uint4*>(stage + row(i) * kConvolutionDepth + chunk() * 16) = staged_[i];
      }
    }
  }

 private:
  static constexpr int kRows = T::kRows * kChunks / T::kThreads;
  static constexpr int kNowhere = -(1 << 30);

  static __device__ __forceinline__ int row(int i) { return threadIdx.x / kChunks + i * (T::kThreads / kChunks); }
  static __device__ __forceinline__ int chunk() { return threadIdx.x % kChunks; }

  // Sets piece `piece` of kWidth bytes of a chunk, from memory or, outside, to the zero point.
  static __device__ __forceinline__ void insert(uint4& chunk, int piece, const uint8_t* from, bool inside,
                                                uint32_t zeros) {
    uint32_t* const words = &chunk.x;
    if constexpr (kWidth == 8) {
      const uint2 value = inside ? *reinterpret_cast<const uint2*>(from) : make_uint2(zeros, zeros);
      words[2 * piece] = value.x;
      words[2 * piece + 1] = value.y;
    } else if constexpr (kWidth == 4) {
      words[piece] = inside ? *reinterpret_cast<const uint32_t*>(from) : zeros;
    } else {
      words[piece / 4] |= (inside ? *from : zeros & 255u) << piece % 4 * 8;
    }
  }

  const uint8_t* image_[kRows];
  int top_[kRows], left_[kRows];
  uint4 staged_[kRows];
};

// Brings weights into shared memory; zeros for channels that the group does not have.
template <class T>
class WeightLoader {
 public:
  __device__ __forceinline__ WeightLoader(const Convolution& c, int first_column, int columns)
      : weights_(c.weights + int64_t{first_column} * c.plan.padded_depth + threadIdx.x % kChunks * 16),
        pitch_(c.plan.padded_depth),
        columns_(columns) {}

  __device__ __forceinline__ void fetch(int step, uint8_t* stage) const {
#pragma unroll
    for (int i = 0; i < T::kColumns * kChunks / T::kThreads; ++i) {
      const int column = threadIdx.x / kChunks + i * (T::kThreads / kChunks);
      const bool valid = column < columns_;
      copy_async16(stage + column * kConvolutionDepth + threadIdx.x % kChunks * 16,
                   weights_ + (valid ? int64_t{column} * pitch_ + step * kConvolutionDepth : 0), valid);
    }
  }

 private:
  const int8_t* weights_;
  int pitch_, columns_;
};

}  // namespace oc::cuda::convolution_tile
