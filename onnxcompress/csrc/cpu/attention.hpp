// Attention of one head on unsigned bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

// One head of one batch. q, k and v are [keys][size] bytes with zero point 128, their rows `stride` apart.
struct AttentionHead {
  const uint8_t *q, *k, *v;
  ptrdiff_t stride;
  int keys, size;
  float scale;              // of q * k, with the softmax's own scale and log2(e): scores are exponents of 2
  const float* key_bias;    // [keys], added to the scaled scores of every query; null: none
  const float* mask;        // [queries][keys], added to the scores before log2(e); null: none
  ptrdiff_t mask_stride;
  const float* value_scale; // [size], over the output's scale
  float zero_point;         // of the output
  uint8_t* y;               // rows of `size` bytes, `y_stride` apart
  ptrdiff_t y_stride;
};

struct AttentionKernels {
  // Bytes of scratch memory, aligned to 64, that `run` needs.
  size_t (*scratch)(int keys, int size, bool mask);
  // Queries [begin, end). Scores and probabilities of a few vectors of queries at a time are all that is kept, so the
  // memory grows with the keys, not with their square.
  void (*run)(const AttentionHead& head, int begin, int end, uint8_t* scratch);
};

// What is added to the scores is brought into [-kMostBias, kMostBias]: scores drown in it, but its sums stay finite.
constexpr float kMostBias = 1e30f;

}  // namespace oc

OC_DECLARE_KERNELS(AttentionKernels, attention)
