// Memory for packed weights and for scratch.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/sanitizer.hpp"

namespace oc {

// `count` zeroed values, aligned to a cache line.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : count_(count) {
    if (count > (SIZE_MAX >> 1) / sizeof(T)) throw std::bad_alloc();  // a negative count, too
    const size_t bytes = (count * sizeof(T) + 64) / 64 * 64;
    constexpr size_t kHugePage = 2 << 20;
    void* memory = nullptr;
    if (posix_memalign(&memory, bytes >= kHugePage ? kHugePage : 64, bytes)) throw std::bad_alloc();
    data_.reset(static_cast<T*>(memory));
#if defined(__linux__)
    // For weights that are streamed: prefetches that miss the translation of a small page come late.
    if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    std::memset(memory, 0, bytes);
    OC_FENCE(memory, count * sizeof(T), bytes);
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  size_t count_ = 0;
};

// Scratch memory of the calling thread that is kept between runs; each `slot` is one block.
inline uint8_t* scratch(int slot, size_t bytes) {
  thread_local Buffer<uint8_t> blocks[8];
  if (blocks[slot].size() < bytes) blocks[slot] = Buffer<uint8_t>(bytes + bytes / 4);
  OC_FENCE(blocks[slot].data(), bytes, blocks[slot].size());
  return blocks[slot].data();
}

}  // namespace oc
