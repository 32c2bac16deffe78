// Convolutions of unsigned bytes, channels last, as a GEMM whose rows are the output's pixels.
#pragma once

#include "cpu/gemm.hpp"
#include "cpu/isa.hpp"

namespace oc {

// `count` lines of `width` output pixels. In a line the windows of neighbours begin `stride` bytes apart, lines begin
// `line` bytes apart, and the pieces of one window (one for each ky) are `pitch` bytes apart.
struct Lines {
  const uint8_t* data;
  ptrdiff_t stride, pitch, line;
  int width, count;
};

// What becomes of the sums: value = sum * scale + offset, padded to whole vectors, for every output channel.
// y and residual point to the first pixel's first channel; pixels are `stride` values apart. Zero points are part of
// the offsets.
struct Epilogue {
  const float *scale, *offset;
  int channels;
  ptrdiff_t stride;
  const uint8_t* table = nullptr;
  const uint8_t* residual = nullptr;
  float residual_scale = 0;
  // after: y = round(table[round(value)] * inner_scale + residual * residual_scale + final_offset)
  bool after = false;
  float inner_scale = 0, final_offset = 0;
};

struct ConvolutionKernels {
  int panel, lanes;
  void (*pack)(const int8_t* w, int n, int segments, int k_in, int k, int8_t* out);
  // Output channels [begin, end), begin a multiple of `panel`.
  void (*to_bytes)(const Lines& x, const PackedWeights& w, int begin, int end, const Epilogue& epilogue, uint8_t* y);
  void (*to_floats)(const Lines& x, const PackedWeights& w, int begin, int end, const Epilogue& epilogue, float* y);
  // x [pixels][stride] to y [channels][plane].
  void (*to_planes)(const float* x, ptrdiff_t stride, int pixels, int channels, float* y, ptrdiff_t plane);
};

}  // namespace oc

OC_DECLARE_KERNELS(ConvolutionKernels, convolution)
