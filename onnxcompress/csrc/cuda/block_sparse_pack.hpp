// Block-sparse weights as the tensor-core kernel reads them. Plain C++, for the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace oc::cuda {

// The weights of onnxcompress/ops/blocks.py: blocks of block_rows (1, 4 or 16) outputs by 4 inputs. The caller has
// checked row_start and column. depth is at most 49152.
struct BlockSparseWeights {
  int outputs = 0, depth = 0, block_rows = 0;
  const int8_t* values = nullptr;      // [blocks][block_rows][4], aligned to 16 bytes on the device
  const int32_t* row_start = nullptr;  // [ceil(outputs / block_rows) + 1]
  const int32_t* column = nullptr;     // [blocks], in units of 4 inputs, rising within a row of blocks

  int block_row_count() const { return (outputs + block_rows - 1) / block_rows; }
};

// Sums of the weights of each output, without what blocks hold beyond the depth: [outputs]. All pointers: host.
void sum_block_sparse(const BlockSparseWeights& weights, int32_t* weight_sums);

constexpr int kPanelRows = 16;     // outputs of a panel: the rows of a tensor core's tile
constexpr int kChunkColumns = 128;  // fours of inputs of a chunk: what shared memory holds of x at a time
constexpr int kGroupBlocks = 8;     // blocks of 16 x 4 that fill the depth of a tile

// Which of 4 sets of banks a column's words of x lie in. Blocks are put in an order in which four that are read
// together have columns of four classes, as far as there are.
constexpr int column_class(int column) { return (column & 1) | ((column >> 1 ^ column >> 2) & 1) << 1; }

// The same weights by panels of 16 outputs, whatever the blocks' rows: the blocks of a panel are the columns of which
// any of its outputs has a value, cut into chunks of columns, and in each chunk padded with zeros to groups of 8.
struct BlockSparsePanels {
  int panels = 0, chunks = 0;
  std::vector<int32_t> starts;   // [panels * chunks + 1]: groups before those of a panel and chunk
  std::vector<int8_t> values;    // [groups][32 lanes][16]: a tensor core's operand a, as a lane has it
  std::vector<uint8_t> columns;  // [groups][4][2]: within the chunk, of blocks t and t + 4 of a group

  size_t groups() const { return columns.size() / kGroupBlocks; }
};

BlockSparsePanels pack_block_sparse(const BlockSparseWeights& weights);

}  // namespace oc::cuda
