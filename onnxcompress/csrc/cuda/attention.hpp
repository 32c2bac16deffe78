// Multi-head attention on bytes: y = quantize(softmax(q k^T * scale + mask) v). Host code may include this.
//
// Products of q and k are exact integers; probabilities are halves of at least 11 significant bits, from the greatest
// of a query down to 2^-31 of it; sums are single precision. Results are those of the formula to one step.
#pragma once

#include <cstdint>

namespace oc::cuda {

enum class AttentionMaskType : int { kNone, kInt64, kInt32, kFloat, kBool };

// Nonzero where a key is attended to or, with `adds`, floats that are added to the scores after they are brought into
// [-1e30, 1e30]; a query whose keys are all left out attends to all alike.
struct AttentionMask {
  AttentionMaskType type = AttentionMaskType::kNone;
  bool adds = false;  // only with kFloat
  const void* values = nullptr;
  // In elements, from one to the next; 0: all have the same. Those of keys lie side by side.
  int64_t batch_stride = 0, head_stride = 0, query_stride = 0;  // of queries only with `adds`
};

constexpr int kMostAttentionSize = 256, kMostAttentionKeys = 1 << 16;

// Device pointers.
struct Attention {
  int64_t batch = 0;
  int keys = 0, heads = 0, size = 0;     // size: of a head
  const uint8_t* qkv = nullptr;          // [batch][keys][3][heads][size], zero point 128
  const float* score_scale = nullptr;    // [heads]: q_scale * k_scale * the softmax's scale * log2(e)
  const float* value_scale = nullptr;    // [heads][size]: v_scale / y_scale
  AttentionMask mask;
  int y_zero = 0;
  uint8_t* y = nullptr;  // [batch][keys][heads][size]
};

// Nothing is done without results. Preconditions: 1 <= size <= kMostAttentionSize, keys <= kMostAttentionKeys, scales
// are finite, qkv and y are aligned to 16 bytes (heads whose size is no multiple of 16 are read slower).
void attention(const Attention& arguments, void* stream);

}  // namespace oc::cuda
