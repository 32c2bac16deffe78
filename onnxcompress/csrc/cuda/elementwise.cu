#include "cuda/elementwise.hpp"

#include <algorithm>
#include <cmath>

#include "cuda/epilogue.hpp"
#include "cuda/table_bytes.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256;

// Values of a thread: bytes in loads of 128 bits; of floats, two such loads to one of 64 bits of bytes.
template <class B>
constexpr int kMost = sizeof(B) == 1 ? 16 : 8;

// Of arguments whose scales are folded into factors: steps of y for a step of a and one of b; of a product, `a_factor`
// is for both.
struct Folded {
  Elementwise e;
  float a_factor, b_factor;
};

// Where the value of b lies that belongs to channel 0 of this pixel.
__device__ __forceinline__ int64_t b_of_pixel(const Elementwise& e, int64_t pixel) {
  if (e.upsample > 1) {
    // The height is a multiple of upsample: rows of all images in one count.
    const int64_t row = pixel / e.width, column = pixel - row * e.width;
    return (row / e.upsample * (e.width / e.upsample) + column / e.upsample) * e.channels;
  }
  return e.image_pixels ? pixel / e.image_pixels * e.channels : 0;
}

template <int kCount>
__device__ __forceinline__ void load_run(const uint8_t* from, float (&values)[kCount]) {
  const Bytes<kCount> bytes = load_bytes<kCount>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = static_cast<float>(bytes.get(i));
}

template <int kCount>
__device__ __forceinline__ void load_run(const float* from, float (&values)[kCount]) {
  if constexpr (kCount == 1) {
    values[0] = *from;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
    }
  }
}

// The values of b for those of a from `first` on, `left` of which are there.
template <class B, int kCount>
__device__ __forceinline__ void load_b(const Elementwise& e, const B* b, int64_t first, int64_t left,
                                       float (&values)[kCount]) {
  if (e.channels) {
    const int64_t pixel = first / e.channels;
    load_run(b + b_of_pixel(e, pixel) + (first - pixel * e.channels), values);
  } else if (left >= kCount) {
    load_run(b + first, values);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = i < left ? static_cast<float>(b[first + i]) : 0.f;
  }
}

// kCount values to a thread, a divisor of the channels where there are any.
template <class B, int kCount>
__global__ void __launch_bounds__(kThreads) elementwise_kernel(Folded f, const B* b) {
  __shared__ ByteTable a_table, table;
  const Elementwise& e = f.e;
  load_table(a_table, e.a_table);
  load_table(table, e.table);
  __syncthreads();
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount, left = e.count - first;
  if (left <= 0) return;
  Bytes<kCount> a = load_bytes<kCount>(e.a + first, left), y{};
  if (e.a_table) a = look_up(a_table, a);
  float values[kCount];
  load_b(e, b, first, left, values);
  const float b_zero = static_cast<float>(e.b_zero);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float left_side = static_cast<float>(a.get(i) - e.a_zero) * f.a_factor, right = values[i] - b_zero;
    const float real = e.operation == Operation::kMultiply ? left_side * right : fmaf(right, f.b_factor, left_side);
    y.add(i, requantize(real, 1.f, e.y_zero));
  }
  if (e.table) y = look_up(table, y);
  store_bytes(e.y + first, y, left);
}

// What is larger saturates just as well, and stays a number when it is multiplied by 0.
float bounded(double factor) { return static_cast<float>(std::clamp(factor, -1e30, 1e30)); }

Folded fold(const Elementwise& e) {
  const double a = static_cast<double>(e.a_scale) / e.y_scale, b = e.b_floats ? 1 : static_cast<double>(e.b_scale);
  Folded f{e, 0, 0};
  if (e.b_floats) f.e.b_zero = 0;
  if (e.operation == Operation::kMultiply) f.a_factor = bounded(a * b);
  else f.a_factor = bounded(a), f.b_factor = bounded((e.operation == Operation::kSubtract ? -b : b) / e.y_scale);
  return f;
}

template <class B>
void launch_of(const Folded& f, const B* b, void* stream) {
  const auto launch_with = [&](auto kernel, int each) {
    OC_LAUNCH(kernel, dim3(blocks_of(f.e.count, kThreads * each)), dim3(kThreads), 0, stream, f, b);
  };
  if (f.e.channels % kMost<B> == 0) launch_with(elementwise_kernel<B, kMost<B>>, kMost<B>);
  else if (f.e.channels % 4 == 0) launch_with(elementwise_kernel<B, 4>, 4);
  else launch_with(elementwise_kernel<B, 1>, 1);
}

}  // namespace

void elementwise(const Elementwise& arguments, void* stream) {
  if (arguments.count == 0) return;
  const Folded folded = fold(arguments);
  if (arguments.b_floats) launch_of(folded, arguments.b_floats, stream);
  else launch_of(folded, arguments.b_bytes, stream);
}

}  // namespace oc::cuda
