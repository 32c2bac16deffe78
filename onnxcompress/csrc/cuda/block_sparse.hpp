// Linear layers of u8 activations with block-sparse s8 weights.
#pragma once

#include <cstdint>

#include "cuda/block_sparse_pack.hpp"
#include "cuda/epilogue_arguments.hpp"

namespace oc::cuda {

// Device pointers to what pack_block_sparse() made, values aligned to 16 bytes; groups: how many there are.
struct BlockSparsePanelPointers {
  const int32_t* starts = nullptr;
  const int8_t* values = nullptr;
  const uint8_t* columns = nullptr;
  int panels = 0, chunks = 0;
  int64_t groups = 0;
};

// y [rows, weights.outputs] of x u8 [rows, weights.depth].
//
// The caller has made sure that epilogue.columns == weights.outputs, that rows is from 0 to 2^31 - 64, that
// channels_first_pixels, where it is given, divides rows, and that weight_sums are those of sum_block_sparse(). Either
// form of the weights may be absent: without panels few rows are fast, without weights.values many.
struct BlockSparseLinear {
  const uint8_t* x = nullptr;
  int rows = 0;
  BlockSparseWeights weights;  // device pointers; sizes are always looked at
  int64_t blocks = 0;          // of the weights
  BlockSparsePanelPointers panels;
  int multiprocessors = 1;  // of the device: how many blocks it takes to fill it
  Epilogue epilogue;
};

// Enqueues the kernel on the stream, a cudaStream_t.
void block_sparse_linear(const BlockSparseLinear& linear, void* stream);

}  // namespace oc::cuda
