// Two quantized tensors, or one and a value per channel, to a third.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

// Addition: a * a_scale + b * b_scale + offset. Product: (a * a_scale + offset) * (b - b_zero).
// Then saturate(round(that) + y_zero), and the table where there is one. Where b is bytes, that must not exceed 2^30.
struct Combination {
  float a_scale, b_scale, offset, b_zero;
  int y_zero;
  const uint8_t* table;
};

// saturate(round(table_in[x] * scale[c] + offset[c]) + y_zero), and table_out. c is the index modulo `channels`; scale
// and offset go on for kAffinePad values beyond `channels`, from their beginning again. They are at most kMostFactor.
struct Affine {
  const float *scale, *offset;
  int channels, y_zero;
  const uint8_t *table_in, *table_out;
};

constexpr int kAffinePad = 64;
// One step of a byte times this saturates, and 255 of them still fit 32 bits.
constexpr double kMostFactor = 1 << 20;

struct ElementwiseKernels {
  void (*add)(const Combination& c, const uint8_t* a, const uint8_t* b, uint8_t* y, size_t count);
  void (*add_float)(const Combination& c, const uint8_t* a, const float* b, uint8_t* y, size_t count);
  void (*mul)(const Combination& c, const uint8_t* a, const uint8_t* b, uint8_t* y, size_t count);
  void (*mul_float)(const Combination& c, const uint8_t* a, const float* b, uint8_t* y, size_t count);
  // x is a run of whole pixels.
  void (*affine)(const Affine& c, const uint8_t* x, uint8_t* y, size_t count);
};

}  // namespace oc

OC_DECLARE_KERNELS(ElementwiseKernels, elementwise)
