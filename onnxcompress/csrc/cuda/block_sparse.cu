// Chooses between the two kernels of block-sparse layers and launches them.
#include <algorithm>

#include "cuda/block_sparse.hpp"
#include "cuda/block_sparse_panels.hpp"
#include "cuda/block_sparse_rows.hpp"
#include "cuda/device.hpp"

namespace oc::cuda {
namespace {

using block_sparse::PanelTile;

// 64 rows by 256 outputs: the widest of which two blocks fit a multiprocessor, for x and the weights come from the
// second-level cache once a tile. 32 rows by 64 outputs where that leaves multiprocessors without work.
using Large = PanelTile<64, 8, 2, 1>;
using Small = PanelTile<32, 4, 1, 2>;

int ceil_divide(int x, int y) { return x / y + (x % y != 0); }

bool aligned_rows(const BlockSparseLinear& c) {
  return c.weights.depth % 16 == 0 && reinterpret_cast<uintptr_t>(c.x) % 16 == 0;
}

template <class T>
dim3 panels_grid(const BlockSparseLinear& c) {
  return dim3(static_cast<unsigned>(ceil_divide(c.rows, T::kTokens)),
              static_cast<unsigned>(ceil_divide(c.weights.outputs, T::kOutputs)));
}

template <class T>
void launch_panels(const BlockSparseLinear& c, void* stream) {
  OC_LAUNCH((block_sparse::panels_kernel<T>), panels_grid<T>(c), dim3(T::kThreads), T::kSharedBytes, stream, c,
            aligned_rows(c), four_at_once(c.epilogue));
}

template <int kTokens>
void launch_rows(const BlockSparseLinear& c, void* stream) {
  const dim3 grid(static_cast<unsigned>(ceil_divide(c.rows, kTokens)),
                  static_cast<unsigned>(ceil_divide(c.weights.outputs,
                                                    block_sparse::kRowWarps * block_sparse::kWarpOutputs)));
  const dim3 block(block_sparse::kRowWarps * 32);
  const size_t bytes = size_t(ceil_divide(c.weights.depth, 16)) * 16 * kTokens;
  const bool wide = aligned_rows(c);
  switch (c.weights.block_rows) {
    case 1: OC_LAUNCH((block_sparse::rows_kernel<kTokens, 1>), grid, block, bytes, stream, c, wide); break;
    case 4: OC_LAUNCH((block_sparse::rows_kernel<kTokens, 4>), grid, block, bytes, stream, c, wide); break;
    default: OC_LAUNCH((block_sparse::rows_kernel<kTokens, 16>), grid, block, bytes, stream, c, wide); break;
  }
}

// Block by block: for few rows, and where the panels hold so many zeros that the tensor cores' lead is spent on them.
bool by_rows(const BlockSparseLinear& c) {
  constexpr int kFewRows = 8;
  constexpr int64_t kLead = 8;  // of tensor cores over dp4a: 8 (sm_80) to 16 times the rate, less what gathers cost
  if (!c.panels.starts || !c.weights.values) return !c.panels.starts;
  const int64_t block_products = c.blocks * c.weights.block_rows * 4;
  return c.rows <= kFewRows || block_products * kLead < c.panels.groups * kGroupBlocks * kPanelRows * 4;
}

}  // namespace

void block_sparse_linear(const BlockSparseLinear& c, void* stream) {
  if (c.rows == 0) return;
  if (by_rows(c)) {
    const int most = block_sparse::kMostRowBytes / (ceil_divide(c.weights.depth, 16) * 16);
    if (c.rows > 4 && most >= 8) {
      launch_rows<8>(c, stream);
    } else if (c.rows > 1 && most >= 4) {
      launch_rows<4>(c, stream);
    } else {
      launch_rows<1>(c, stream);
    }
    return;
  }
  const dim3 large = panels_grid<Large>(c);
  if (int64_t{large.x} * large.y >= c.multiprocessors) {
    launch_panels<Large>(c, stream);
  } else {
    launch_panels<Small>(c, stream);
  }
}

}  // namespace oc::cuda
