// Copies from global to shared memory that pass by the registers (cp.async, sm_80 and later).
//
// A copy has landed, for the thread that issued it, when copy_wait<N>() returns and at most N groups were committed
// after it; for the other threads of the block, after a __syncthreads() that follows.
#pragma once

#include "cuda/device.hpp"

namespace oc::cuda {

#ifdef __CUDACC__

// 16 bytes, both addresses aligned to 16; zeros where not valid, and then nothing is read.
__device__ __forceinline__ void copy_async16(void* shared, const void* global, bool valid) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

template <int kGroupsLeft>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kGroupsLeft) : "memory");
}

#else

namespace emulation {

constexpr size_t kCopyBytes = 16;

inline void require_aligned(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % kCopyBytes != 0) {
    fail("copy_async16 of an address not aligned to 16 bytes", current_thread());
  }
}

inline void land(const PendingCopy& copy) {
  if (copy.valid) {
    std::memcpy(copy.shared, copy.global, kCopyBytes);
  } else {
    std::memset(copy.shared, 0, kCopyBytes);
  }
}

}  // namespace emulation

// Between the issue and the wait the bytes are garbage: a kernel that reads them then, or that overwrites what another
// thread still reads, gives wrong results whatever the order of its threads.
inline void copy_async16(void* shared, const void* global, bool valid) {
  emulation::require_aligned(shared);
  if (valid) emulation::require_aligned(global);
  auto& copies = emulation::current_thread().copies;
  if (copies.empty()) copies.emplace_back();
  copies.back().push_back({shared, global, valid});
  std::memset(shared, 0xCB, emulation::kCopyBytes);
}

inline void copy_commit() {
  auto& copies = emulation::current_thread().copies;
  if (copies.empty()) copies.emplace_back();
  copies.emplace_back();
}

template <int kGroupsLeft>
void copy_wait() {
  auto& copies = emulation::current_thread().copies;
  while (copies.size() > kGroupsLeft + 1) {
    for (const emulation::PendingCopy& copy : copies.front()) emulation::land(copy);
    copies.erase(copies.begin());
  }
}

#endif

}  // namespace oc::cuda
