// CUDA blocks on the CPU: every thread of a block is a fiber, blocks run one after another.
//
// A fiber runs until it meets a barrier, a shuffle or another warp-wide instruction; then the next lane of its warp
// runs, and a warp runs until it waits for the block; then the next warp runs, in the order of threadIdx or, with
// `reversed`, backwards. So of any two warps each is ahead of the other by as much as the barriers allow, in one order
// or in the other, and a result that depends on that order misses a barrier. What a GPU leaves undefined is an error
// here: barriers that not all threads reach, or reach at different places, shuffles that read a lane outside the mask,
// launches beyond the limits of a device. Shared memory holds garbage when a block begins. For tests: one launch at a
// time in a process.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static  // of the one block that runs
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace oc::cuda::emulation {

inline bool reversed = false;  // threads of a block run in the order of falling indices

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a warp does together, once every lane of `mask` has come: operands[lane] is that lane's own, null outside.
using WarpOperation = void (*)(void* const* operands, unsigned mask);

// A cp.async that was issued and has not landed.
struct PendingCopy {
  void* shared;
  const void* global;
  bool valid;
};

struct Thread {
  enum State { kReady, kAtBlockBarrier, kAtWarpOperation, kDone };
  State state = kReady;
  uint3 index = {};
  unsigned mask = 0;
  WarpOperation operation = nullptr;
  void* operand = nullptr;
  std::source_location where;
  std::vector<std::vector<PendingCopy>> copies;  // groups in the order of their commits, the open one last
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
#endif
};

constexpr size_t kStackBytes = 256 << 10;
constexpr std::align_val_t kSharedAlignment{128};

struct FreeAligned {
  void operator()(unsigned char* memory) const { ::operator delete(memory, kSharedAlignment); }
};

// The block that runs.
struct Machine {
  std::vector<Thread> threads;
  size_t current = 0;
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr failure;
  std::unique_ptr<unsigned char, FreeAligned> shared;
  size_t shared_bytes = 0;
  ucontext_t scheduler;
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
#endif
};

inline Machine machine;

inline Thread& current_thread() { return machine.threads[machine.current]; }
inline unsigned lane() { return static_cast<unsigned>(machine.current % warpSize); }

inline unsigned char* dynamic_shared() { return machine.shared.get(); }

// From this fiber to the scheduler, until the scheduler comes back. It does not, where the fiber has ended.
inline void leave_fiber() {
  Thread& thread = current_thread();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(thread.state == Thread::kDone ? nullptr : &thread.fake_stack, machine.stack_bottom,
                                 machine.stack_size);
#endif
  swapcontext(&thread.context, &machine.scheduler);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(thread.fake_stack, &machine.stack_bottom, &machine.stack_size);
#endif
}

inline void enter_fiber(size_t i) {
  Thread& thread = machine.threads[i];
  machine.current = i;
  threadIdx = thread.index;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&machine.fake_stack, thread.stack.get(), kStackBytes);
#endif
  swapcontext(&machine.scheduler, &thread.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(machine.fake_stack, nullptr, nullptr);
#endif
}

inline void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &machine.stack_bottom, &machine.stack_size);
#endif
  try {
    (*machine.kernel)();
  } catch (...) {
    machine.failure = std::current_exception();
  }
  current_thread().state = Thread::kDone;
  leave_fiber();
}

inline std::string name_of(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

[[noreturn]] inline void fail(const std::string& what, const Thread& thread) {
  throw Error(what + ", thread " + name_of(thread.index) + " of block " + name_of(blockIdx));
}

// Waits at a barrier of the block. Threads that have ended are not waited for.
inline void block_barrier(const std::source_location& where) {
  Thread& thread = current_thread();
  thread.where = where, thread.state = Thread::kAtBlockBarrier;
  leave_fiber();
}

// Does `operation` once together with the other lanes of `mask`; what it writes to *operand is there on return.
inline void warp_operation(unsigned mask, WarpOperation operation, void* operand) {
  Thread& thread = current_thread();
  if (!(mask >> lane() & 1)) fail("a warp instruction whose mask leaves out the calling lane", thread);
  thread.mask = mask, thread.operation = operation, thread.operand = operand;
  thread.state = Thread::kAtWarpOperation;
  leave_fiber();
}

// Where all lanes of the mask of thread `first` have come, does their operation. Is there one that had come?
inline bool release_lanes(size_t warp, size_t first) {
  const Thread& asking = machine.threads[first];
  const unsigned mask = asking.mask;
  void* operands[warpSize] = {};
  for (unsigned i = 0; i < warpSize; ++i) {
    if (!(mask >> i & 1)) continue;
    const bool exists = warp + i < machine.threads.size();
    if (!exists || machine.threads[warp + i].state == Thread::kDone) {
      fail("a warp instruction whose mask names a lane that has ended or is not there", asking);
    }
    const Thread& other = machine.threads[warp + i];
    if (other.state != Thread::kAtWarpOperation) return false;
    if (other.mask != mask || other.operation != asking.operation) {
      fail("lanes of a warp at different instructions, or with different masks", asking);
    }
    operands[i] = other.operand;
  }
  asking.operation(operands, mask);
  for (unsigned i = 0; i < warpSize; ++i) {
    if (mask >> i & 1) machine.threads[warp + i].state = Thread::kReady;
  }
  return true;
}

// Runs a warp until each of its lanes has ended or waits for the block.
inline void run_warp(size_t warp) {
  const size_t lanes = std::min<size_t>(warpSize, machine.threads.size() - warp);
  for (bool released = true; released;) {
    for (size_t i = 0; i < lanes; ++i) {
      const size_t next = warp + (reversed ? lanes - 1 - i : i);
      if (machine.threads[next].state != Thread::kReady) continue;
      enter_fiber(next);
      if (machine.failure) std::rethrow_exception(std::exchange(machine.failure, nullptr));
    }
    released = false;
    for (size_t i = warp; i < warp + lanes; ++i) {
      if (machine.threads[i].state == Thread::kAtWarpOperation) released |= release_lanes(warp, i);
    }
  }
}

// Where all threads that run are at the barrier, lets them go.
inline bool release_block() {
  const Thread* first = nullptr;
  for (const Thread& thread : machine.threads) {
    if (thread.state == Thread::kDone) continue;
    if (thread.state != Thread::kAtBlockBarrier) return false;
    if (!first) first = &thread;
    if (thread.where.line() != first->where.line() ||
        std::strcmp(thread.where.file_name(), first->where.file_name()) != 0) {
      fail("a divergent barrier: threads of a block at different __syncthreads()", thread);
    }
  }
  if (!first) return false;
  for (Thread& thread : machine.threads) {
    if (thread.state == Thread::kAtBlockBarrier) thread.state = Thread::kReady;
  }
  return true;
}

inline void start_fibers() {
  for (size_t i = 0; i < machine.threads.size(); ++i) {
    Thread& thread = machine.threads[i];
    const auto n = static_cast<unsigned>(i);
    thread.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y)};
    thread.state = Thread::kReady;
    thread.copies.clear();
    if (!thread.stack) thread.stack.reset(new unsigned char[kStackBytes]);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, fiber_main, 0);
  }
}

// One warp after another, each as far as it gets: what one does between two barriers is done before the next begins.
inline void run_block() {
  start_fibers();
  std::memset(machine.shared.get(), 0xCB, machine.shared_bytes);
  const size_t warps = (machine.threads.size() + warpSize - 1) / warpSize;
  do {
    for (size_t i = 0; i < warps; ++i) run_warp((reversed ? warps - 1 - i : i) * warpSize);
  } while (release_block());
  for (const Thread& thread : machine.threads) {
    if (thread.state != Thread::kDone) fail("a deadlock: a barrier that not all threads reach", thread);
  }
}

inline void require_launchable(dim3 grid, dim3 block, size_t shared_bytes) {
  constexpr size_t kThreads = 1024, kSharedBytes = 99 << 10, kRows = 65535;  // shared memory: sm_89, the least of ours
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw Error(std::string("a launch with ") + what);
  };
  require(grid.x && grid.y && grid.z && block.x && block.y && block.z, "nothing to do: a grid or block of size 0");
  require(size_t{block.x} * block.y * block.z <= kThreads && block.z <= 64, "too many threads in a block");
  require(grid.x <= 0x7fffffffu && grid.y <= kRows && grid.z <= kRows, "too many blocks");
  require(shared_bytes <= kSharedBytes, "more shared memory than a block can have");
}

// Runs a kernel; throws Error for what no device would run, and what the kernel itself throws.
inline void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  require_launchable(grid, block, shared_bytes);
  machine.threads.resize(size_t{block.x} * block.y * block.z);
  machine.kernel = &kernel, machine.failure = nullptr;
  machine.shared.reset(static_cast<unsigned char*>(::operator new(shared_bytes, kSharedAlignment)));
  machine.shared_bytes = shared_bytes;
  gridDim = grid, blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block();
      }
    }
  }
}

}  // namespace oc::cuda::emulation
