// What AddressSanitizer cannot know by itself. Nothing of it is in other builds.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define OC_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OC_SANITIZED 1
#endif
#endif

#if defined(OC_SANITIZED)
extern "C" {
void __asan_loadN(void* address, long size);  // as GCC has it built in
void __asan_poison_memory_region(void const volatile* address, size_t size);
void __asan_unpoison_memory_region(void const volatile* address, size_t size);
}

// Assembly reads `size` bytes at p.
#define OC_READS(p, size) __asan_loadN(const_cast<void*>(static_cast<const void*>(p)), size)
// Of `allocated` bytes at p, those from `used` on are padding that nobody may touch.
#define OC_FENCE(p, used, allocated)           \
  (__asan_unpoison_memory_region(p, used),     \
   __asan_poison_memory_region(reinterpret_cast<char*>(p) + (used), (allocated) - (used)))
#else
#define OC_READS(p, size) static_cast<void>(0)
#define OC_FENCE(p, used, allocated) static_cast<void>(0)
#endif
