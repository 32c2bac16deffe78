// Linear layers of half-precision activations and weights of 4 or 8 bits, which stay packed in memory.
//
//   value = activation(sum_k x[m][k] * w[n][k] + bias[n])                             y = value + residual
//   value = activation(sum_k x * gate + bias[2n]) * (sum_k x * up + bias[2n + 1])     the same, `gated`
//
// Sums are single precision, of halves that the weights become: exact codes up to 16 rows of x, whose blocks' sums are
// scaled; (code - zero point) * scale rounded to half beyond. y in halves is rounded once more.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/activation.hpp"

namespace oc::cuda {

// A PackedWeightOnly (weight_only_pack.hpp) in device memory, each array aligned to 16 bytes.
struct WeightOnlyMatrix {
  int bits = 4, n = 0, k = 0;  // n: rows, gate and up together
  int blocks = 1, chunk_shift = 0;
  const void* words = nullptr;
  const void* scale = nullptr;
  const uint8_t* zero_point = nullptr;  // null: the middle code
  const float* channel = nullptr;
};

// Device pointers; null: absent. `columns` is n, or, gated, n / 2.
struct WeightOnlyLayer {
  WeightOnlyMatrix w;
  int m = 0;
  const void* x = nullptr;         // half [m][k], aligned to 16 bytes (rows need not be: they are then read slower)
  const float* bias = nullptr;     // [n], of gate and up in turn
  const void* residual = nullptr;  // [m][columns], halves or, with float_residual, floats
  void* y = nullptr;               // [m][columns], halves or, with float_output, floats
  Activation activation = Activation::kNone;
  bool gated = false, float_output = false, float_residual = false;
  // Of the plan's sizes, where it splits k. `arrived` must be zero, and is again when the launch has run.
  float* partial = nullptr;
  int* arrived = nullptr;
};

// How a layer of these sizes is cut.
struct WeightOnlyPlan {
  int tile_rows = 0;       // of x in a block: 2, 4, 8, 16 (a block reads its weights once, from global memory to
                           // registers), 32, 64, 128 (weights and x in tiles through shared memory)
  int splits = 1;          // parts of k, whose sums the last block to arrive adds up, in their order
  int split_steps = 0;     // of 64 k in a part
  int64_t partial = 0;     // floats of scratch memory
  int64_t arrived = 0;     // and counters
};

// `multiprocessors`: of the device. The plan reads w.bits, w.n, w.k and m only.
WeightOnlyPlan plan_weight_only(const WeightOnlyLayer& layer, int multiprocessors);

// Preconditions: w is as packed, gated only with pairs of rows, a plan for these sizes and its scratch memory. Nothing
// is done where m or n is 0.
void weight_only(const WeightOnlyLayer& layer, const WeightOnlyPlan& plan, void* stream);

}  // namespace oc::cuda
