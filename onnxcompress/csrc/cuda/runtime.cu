#include "cuda/runtime.hpp"

#include <cstring>
#include <stdexcept>
#include <string>

#include "cuda/device.hpp"

namespace oc::cuda {

#ifdef OC_EMULATED

void copy(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void clear(void* to, size_t bytes, void*) { std::memset(to, 0, bytes); }
int multiprocessors() { return 4; }  // few, so that small cases split their work too
const char* last_error() { return nullptr; }
int device_count() { return 1; }

#else

namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

}  // namespace

void copy(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault));
  // From pageable memory the call returns when the bytes are staged, and streams of the runtime wait for no other one.
  check(cudaStreamSynchronize(nullptr));
}

void clear(void* to, size_t bytes, void* stream) {
  check(cudaMemsetAsync(to, 0, bytes, static_cast<cudaStream_t>(stream)));
}

int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

int device_count() {
  constexpr int kLeastMajor = 8;
  int count = 0, able = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return 0;
  for (int device = 0; device < count; ++device) {
    int major = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess) {
      able += major >= kLeastMajor;
    }
  }
  return able;
}

#endif

}  // namespace oc::cuda
