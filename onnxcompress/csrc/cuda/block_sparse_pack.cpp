#include "cuda/block_sparse_pack.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

namespace oc::cuda {
namespace {

using Block = std::array<int8_t, kPanelRows * 4>;  // 16 outputs by 4 inputs

// The blocks of a panel, by column.
std::map<int, Block> panel_blocks(const BlockSparseWeights& w, int panel) {
  std::map<int, Block> blocks;
  const int first = panel * kPanelRows, end = std::min(first + kPanelRows, w.outputs);
  for (int row = first / w.block_rows; row * w.block_rows < end; ++row) {
    for (int b = w.row_start[row]; b < w.row_start[row + 1]; ++b) {
      Block& block = blocks.try_emplace(w.column[b], Block{}).first->second;
      for (int i = 0; i < w.block_rows && row * w.block_rows + i < end; ++i) {
        std::copy_n(w.values + (size_t(b) * w.block_rows + i) * 4, 4,
                    block.data() + (row * w.block_rows + i - first) * 4);
      }
    }
  }
  return blocks;
}

// Columns in an order in which four in a row have different classes, as far as there are.
std::vector<int> spread(const std::vector<int>& columns) {
  std::array<std::vector<int>, 4> of_class;
  for (auto column = columns.rbegin(); column != columns.rend(); ++column) {
    of_class[column_class(*column)].push_back(*column);
  }
  std::vector<int> order;
  while (order.size() < columns.size()) {
    std::array<int, 4> classes = {0, 1, 2, 3};
    std::stable_sort(classes.begin(), classes.end(),
                     [&](int a, int b) { return of_class[a].size() > of_class[b].size(); });
    for (int i = 0; i < 4 && order.size() < columns.size(); ++i) {
      auto& from = of_class[classes[i]].empty() ? of_class[classes[0]] : of_class[classes[i]];
      if (from.empty()) break;
      order.push_back(from.back());
      from.pop_back();
    }
  }
  return order;
}

// Appends the groups of these columns. Lane 4g + t of operand a: rows g and g + 8 of block t, then of block t + 4.
void append_groups(const std::map<int, Block>& blocks, const std::vector<int>& columns, BlockSparsePanels& panels) {
  const std::vector<int> order = spread(columns);
  for (size_t first = 0; first < order.size(); first += kGroupBlocks) {
    const size_t values = panels.values.size(), at = panels.columns.size();
    panels.values.resize(values + size_t{32} * 16);
    panels.columns.resize(at + kGroupBlocks);
    for (size_t i = 0; i < kGroupBlocks; ++i) {
      if (first + i >= order.size()) continue;  // zeros, of the chunk's column 0
      const size_t t = i % 4, half = i / 4;
      const Block& block = blocks.at(order[first + i]);
      panels.columns[at + t * 2 + half] = static_cast<uint8_t>(order[first + i] % kChunkColumns);
      for (size_t row = 0; row < kPanelRows; ++row) {
        const size_t lane = row % 8 * 4 + t, word = half * 2 + row / 8;
        std::copy_n(block.data() + row * 4, 4, panels.values.data() + values + lane * 16 + word * 4);
      }
    }
  }
}

}  // namespace

void sum_block_sparse(const BlockSparseWeights& w, int32_t* weight_sums) {
  std::fill_n(weight_sums, w.outputs, 0);
  for (int n = 0; n < w.outputs; ++n) {
    const int row = n / w.block_rows;
    for (int b = w.row_start[row]; b < w.row_start[row + 1]; ++b) {
      const int8_t* const values = w.values + (size_t(b) * w.block_rows + n % w.block_rows) * 4;
      for (int k = 0; k < 4 && w.column[b] * 4 + k < w.depth; ++k) weight_sums[n] += values[k];
    }
  }
}

BlockSparsePanels pack_block_sparse(const BlockSparseWeights& w) {
  BlockSparsePanels packed;
  packed.panels = (w.outputs + kPanelRows - 1) / kPanelRows;
  packed.chunks = (w.depth + kChunkColumns * 4 - 1) / (kChunkColumns * 4);
  packed.starts.push_back(0);
  for (int panel = 0; panel < packed.panels; ++panel) {
    const std::map<int, Block> blocks = panel_blocks(w, panel);
    auto block = blocks.begin();
    for (int chunk = 0; chunk < packed.chunks; ++chunk) {
      std::vector<int> columns;
      for (; block != blocks.end() && block->first / kChunkColumns == chunk; ++block) columns.push_back(block->first);
      append_groups(blocks, columns, packed);
      packed.starts.push_back(static_cast<int32_t>(packed.groups()));
    }
  }
  return packed;
}

}  // namespace oc::cuda
