#include "cuda/table.hpp"

#include "cuda/table_bytes.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256, kEach = 16;

__global__ void __launch_bounds__(kThreads) table_kernel(Table t) {
  __shared__ ByteTable table;
  load_table(table, t.table);
  __syncthreads();
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEach, left = t.count - first;
  if (left <= 0) return;
  store_bytes(t.y + first, look_up(table, load_bytes<kEach>(t.x + first, left)), left);
}

}  // namespace

void apply_table(const Table& arguments, void* stream) {
  if (arguments.count == 0) return;
  OC_LAUNCH(table_kernel, dim3(blocks_of(arguments.count, kThreads * kEach)), dim3(kThreads), 0, stream, arguments);
}

}  // namespace oc::cuda
