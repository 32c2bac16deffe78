// Convolutions of 3 x 3 with stride 1 in a quarter of the products, with the same integers as the direct ones.
//
// Winograd's F(4x4, 3x3) (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015): 4 x 4 outputs
// come from the 36 products of a transformed patch of 6 x 6 inputs and the transformed weights. Its matrices have
// fractions; multiplied by their denominators they are
//
//         4  0 -5  0  1  0         6  0  0
//         0 -4 -4  1  1  0        -1 -1 -1            1  4  4  1  1  0  = 24 of an output
//   B' =  0  4 -4 -1  1  0   G =  -1  1 -1      A' =  0  2 -2  1 -1  0  = 12
//         0 -2 -1  2  1  0         1  2  4            0  1  1  1  1  0  =  6
//         0  2 -1 -2  1  0         1 -2  4            0  1 -1  2 -2  1  =  6
//         0  4  0 -5  0  1         0  0  6
//
// so that transformed bytes and weights are whole numbers of 16 bits (at most 17340 and 6272), which vpdpwssd multiplies,
// two in a lane. Sums modulo 2^32 are enough: those of an output are 9 * 2^s of it, s from 2 to 6; 9 has an inverse modulo
// 2^32, and what is left is shifted down. It is exact where outputs are from -2^25 to 2^25 - 1.
#pragma once

#include "cpu/convolution.hpp"

namespace oc {

constexpr int kWinogradOutputs = 4;    // of a tile, in each direction
constexpr int kWinogradProducts = 36;  // of a tile

// Tiles [first, first + count) of images [height][width][channels]: tiles_h x tiles_w of each image, line by line.
// Pixels outside of an image are `border`.
struct WinogradTiles {
  const uint8_t *x, *border;
  int64_t height, width, out_height, out_width;
  int64_t tiles_h, tiles_w, first;
  int channels, top, left, count;
};

// Transformed inputs: [36][tile][channels, padded], with `stride` values from a product to the next.
struct WinogradInputs {
  int16_t* data;
  ptrdiff_t stride;
  int channels;
};

// Transformed weights of `vectors` vectors of outputs from `column` on, all of one panel: the panel of PackedWords for
// each of the 36 products, `stride` bytes apart.
struct WinogradWeights {
  int8_t* data;
  ptrdiff_t stride;
  int column, vectors;
};

// Sums of the products: [36][tile][vector][lane], with `stride` values from a product to the next.
struct WinogradSums {
  int32_t* data;
  ptrdiff_t stride;
};

struct WinogradKernels {
  int words;  // channels of inputs are padded to a multiple of these
  void (*transform_inputs)(const WinogradTiles& x, const WinogradInputs& inputs);
  // From those of the direct convolution, whose channels must be a multiple of 4.
  void (*transform_weights)(const PackedWeights& direct, int channels, const WinogradWeights& weights);
  // The outputs of the tiles; `offset` is added to each of their sums.
  void (*to_bytes)(const WinogradTiles& x, const WinogradInputs& inputs, const WinogradWeights& weights,
                   const WinogradSums& sums, const int32_t* offset, const Epilogue& epilogue, uint8_t* y);
  void (*to_floats)(const WinogradTiles& x, const WinogradInputs& inputs, const WinogradWeights& weights,
                    const WinogradSums& sums, const int32_t* offset, const Epilogue& epilogue, float* y);
};

}  // namespace oc

OC_DECLARE_KERNELS(WinogradKernels, winograd)
