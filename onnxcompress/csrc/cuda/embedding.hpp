// Word, type and position embeddings of tokens, their sum normalized and quantized. Host code may include this.
//
//   s = words[id] * word_scale[id] + types[type] + positions[place] (* position_scale[place])
//   y = (s - mean) / sqrt(variance + epsilon) * gamma + beta
//   q = saturate(round(y * q_inverse) + q_zero)          or, dynamic:
//   q = y * q_inverse by the row's own range, extended to contain 0 (onnxcompress/ops/row_quantization.py)
//
// The arithmetic is single precision, with the mean taken off before squares are summed. q may differ by one step. A
// token one of whose ids lies beyond its table is not a number: y is NaN, q is 0, and the launch succeeds, as the ids
// are known to the device only.
#pragma once

#include <cstdint>

namespace oc::cuda {

// Which row of a table each token has.
struct TokenIds {
  const void* values = nullptr;  // [count], of int64 or int32; token i has values[i % count]
  bool narrow = false;           // int32
  int64_t count = 0;
};

// Device pointers; null: absent.
struct EmbedNorm {
  int64_t tokens = 0;
  int channels = 0;
  TokenIds ids, type_ids, position_ids;
  int64_t words = 0, types = 0, positions = 0;  // rows of the tables
  const int8_t* word_table = nullptr;
  const float* word_scale = nullptr;           // [words]
  const float* type_table = nullptr;           // with type_ids
  const float* position_table = nullptr;       // or position_bytes
  const int8_t* position_bytes = nullptr;
  const float* position_scale = nullptr;       // [positions], with position_bytes
  // Without position_ids, token i has position_offset + i % length: the caller knows that these are in the table.
  int64_t position_offset = 0, length = 1;
  float epsilon = 0;
  const float *gamma = nullptr, *beta = nullptr;  // [channels]
  float* y = nullptr;                             // [tokens][channels]
  uint8_t* q = nullptr;
  float q_inverse = 1;
  const float* q_inverse_vector = nullptr;  // [channels], in place of q_inverse
  int q_zero = 0;
  bool dynamic = false;
  float* row_scale = nullptr;   // [tokens], with dynamic
  uint8_t* row_zero = nullptr;  // [tokens], with dynamic
};

// Nothing is done without tokens. Preconditions: channels >= 1; arrays are aligned to 16 bytes (rows need not be: they
// are then read slower); no output overlaps an input; epsilon, or the variance of every row, is positive.
void embed_norm(const EmbedNorm& arguments, void* stream);

}  // namespace oc::cuda
