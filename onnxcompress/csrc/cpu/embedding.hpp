// Sums of the embeddings of tokens.
#pragma once

#include <cstdint>

#include "cpu/isa.hpp"

namespace oc {

// Tables have rows of `channels` values.
struct Embedding {
  const int8_t* words;
  const float* word_scale;  // of each row
  const float* types;       // null: none
  const float* positions;   // null: none, or position_bytes
  const int8_t* position_bytes;
  const float* position_scale;  // of each row of position_bytes
  int channels;
};

// Rows of the tables for each token.
struct Tokens {
  const int64_t *words, *types, *positions;
};

struct EmbeddingKernels {
  // y[token - begin][channel] of tokens [begin, end).
  void (*sum)(const Embedding& e, const Tokens& tokens, int64_t begin, int64_t end, float* y);
};

}  // namespace oc

OC_DECLARE_KERNELS(EmbeddingKernels, embedding)
