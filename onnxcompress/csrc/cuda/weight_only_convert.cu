#include "cuda/weight_only_convert.hpp"

#include "cuda/together.hpp"

namespace oc::cuda {
namespace {

constexpr int kThreads = 256, kValues = 8;  // of a thread: two loads and a store of 16 bytes

__global__ void __launch_bounds__(kThreads) convert_kernel(ConvertToHalves p) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kValues, left = p.count - first;
  if (left <= 0) return;
  const int count = left < kValues ? static_cast<int>(left) : kValues;
  float values[kValues];
  load_together(p.x + first, values, count);
  store_together(static_cast<half*>(p.y) + first, values, count);
}

}  // namespace

void convert_to_halves(const ConvertToHalves& arguments, void* stream) {
  if (arguments.count <= 0) return;
  constexpr int64_t kOfBlock = kThreads * kValues;
  const auto blocks = static_cast<unsigned>((arguments.count + kOfBlock - 1) / kOfBlock);
  OC_LAUNCH(convert_kernel, dim3(blocks), dim3(kThreads), 0, stream, arguments);
}

}  // namespace oc::cuda
