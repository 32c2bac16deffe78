// What host code asks of the CUDA runtime, in words that need no header of it. Emulated where the kernels are.
#pragma once

#include <cstddef>

namespace oc::cuda {

// Between any two memories; waits until the bytes are there. Throws std::runtime_error where it fails.
void copy(void* to, const void* from, size_t bytes);

// Zeroes, in the order of the stream.
void clear(void* to, size_t bytes, void* stream);

// Of the device that is current.
int multiprocessors();

// What went wrong since the last call, as launches that failed; null: nothing.
const char* last_error();

// How many devices there are that the kernels are compiled for; 0 too where there is no driver.
int device_count();

}  // namespace oc::cuda
