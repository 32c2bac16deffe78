// Both are bound by memory and small beside the weights: a thread a value, neighbours side by side.
#include "cuda/linear4.hpp"

#include <algorithm>

#include "cuda/device.hpp"
#include "cuda/epilogue.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256;

unsigned blocks_for(int64_t count) {
  constexpr int64_t kMost = 1 << 20;
  return static_cast<unsigned>(std::min((count + kThreads - 1) / kThreads, kMost));
}

__global__ void __launch_bounds__(kThreads) centre_kernel(const __grid_constant__ Centre c) {
  const int64_t row = int64_t{c.blocks} * c.padded, count = c.m * row, step = int64_t{gridDim.x} * kThreads;
  auto* const y = static_cast<half*>(c.y);
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t m = i / row, at = i - m * row, block = at / c.padded;
    const int within = static_cast<int>(at - block * c.padded);
    const int zero = c.row_zero ? c.row_zero[m] : c.zero;
    const int value = within < c.block ? c.x[(m * c.blocks + block) * c.block + within] - zero : 0;
    y[i] = __float2half_rn(static_cast<float>(value));
  }
}

__global__ void __launch_bounds__(kThreads) finish_kernel(const __grid_constant__ FinishFloats f) {
  const int64_t count = f.m * f.n, step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t m = i / f.n;
    const int n = static_cast<int>(i - m * f.n);
    float real = f.sums[i] * (f.row_scale ? f.row_scale[m] : f.x_scale);
    real = activate(f.activation, f.bias ? real + f.bias[n] : real);
    if (f.residual) real += f.residual[i];
    if (f.y) f.y[i] = requantize(real, f.y_inverse[n], f.y_zero);
    if (f.y_float) f.y_float[i] = real;
  }
}

}  // namespace

void centre(const Centre& c, void* stream) {
  const int64_t count = c.m * c.blocks * c.padded;
  if (count) OC_LAUNCH(centre_kernel, dim3(blocks_for(count)), dim3(kThreads), 0, stream, c);
}

void finish_floats(const FinishFloats& f, void* stream) {
  const int64_t count = f.m * f.n;
  if (count) OC_LAUNCH(finish_kernel, dim3(blocks_for(count)), dim3(kThreads), 0, stream, f);
}

}  // namespace oc::cuda
