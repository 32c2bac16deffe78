// What every kernel includes: the CUDA language, from nvcc or emulated on the CPU, and the few instructions that CUDA
// C++ has no words for.
//
// A `.cu` file compiles with nvcc and, for tests on a machine that has no GPU, with `g++ -std=c++20 -x c++`. To stay
// readable to both it launches with OC_LAUNCH, names dynamic shared memory with OC_DYNAMIC_SHARED, and keeps to what
// emulation.hpp and emulation_builtins.hpp define.
#pragma once

#include <cstdint>

#ifdef __CUDACC__

#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace oc::cuda {

// Launches on a stream of the caller's; a launch that fails is found by the caller in cudaGetLastError().
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
            const Arguments&... arguments) {
  // Without asking there are 48 KB for a kernel's dynamic and its static shared memory together.
  constexpr size_t kWithoutAsking = 32 << 10;
  if (shared_bytes > kWithoutAsking) {
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(static_cast<Parameters>(arguments)...);
}

}  // namespace oc::cuda

// Dynamic shared memory of this block as `T* name`, aligned to 128 bytes.
#define OC_DYNAMIC_SHARED(T, name)                          \
  extern __shared__ __align__(128) unsigned char oc_shared[]; \
  T* name = reinterpret_cast<T*>(oc_shared)

#else

#define OC_EMULATED 1

#include "cuda/emulation.hpp"
#include "cuda/emulation_builtins.hpp"

namespace oc::cuda {

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void*,
            const Arguments&... arguments) {
  emulation::run(grid, block, shared_bytes, [&] { kernel(static_cast<Parameters>(arguments)...); });
}

}  // namespace oc::cuda

#define OC_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(::oc::cuda::emulation::dynamic_shared())

#endif

// kernel: a name, a template's instance in parentheses. stream: void*, a cudaStream_t. No arguments: not possible.
#define OC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::oc::cuda::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#include "cuda/async_copy.hpp"
#include "cuda/tensor_cores.hpp"
