// The mean over tokens, by weights, of rows of floats. Host code may include this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace oc::cuda {

enum class WeightType : int { kInt64, kInt32, kFloat, kBool };

// y = sum over tokens of weight * x / max(sum of weights, minimum_count), and with `normalizes` that divided by
// max(its Euclidean norm, norm_epsilon). Device pointers. Single precision, in an order that is always the same.
struct MeanPool {
  int64_t batch = 0, length = 0;
  int channels = 0;
  const float* x = nullptr;       // [batch][length][channels]
  const void* weights = nullptr;  // [batch][length]
  WeightType weight_type = WeightType::kFloat;
  float minimum_count = 0;
  bool normalizes = false;
  float norm_epsilon = 0;
  float* y = nullptr;        // [batch][channels]
  float* scratch = nullptr;  // of mean_pool_scratch() floats
  int multiprocessors = 1;   // of the device; the work is cut for them, and with it the scratch memory
};

// Floats of scratch memory.
size_t mean_pool_scratch(const MeanPool& arguments);

// Nothing is done without results. Preconditions: multiprocessors is positive, channels <= 2^24, arrays are aligned to
// 16 bytes (rows need not be: they are then read slower).
void mean_pool(const MeanPool& arguments, void* stream);

}  // namespace oc::cuda
