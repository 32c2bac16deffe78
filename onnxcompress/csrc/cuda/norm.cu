#include "cuda/norm.hpp"

#include <algorithm>

#include "cuda/epilogue.hpp"
#include "cuda/together.hpp"

namespace oc::cuda {
namespace {

constexpr int kThreads = 256, kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kLeastScale = 1e-12f;  // LEAST_SCALE of row_quantization.py

struct Add {
  __device__ float2 operator()(float2 a, float2 b) const { return make_float2(a.x + b.x, a.y + b.y); }
};
struct Range {
  __device__ float2 operator()(float2 a, float2 b) const { return make_float2(fminf(a.x, b.x), fmaxf(a.y, b.y)); }
};

// Both values combined over the threads of a row, in an order that is always the same.
template <int kRowThreads, class Combine>
__device__ __forceinline__ float2 reduce(float2 value, Combine combine) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    const float x = __shfl_xor_sync(kAllLanes, value.x, bits), y = __shfl_xor_sync(kAllLanes, value.y, bits);
    value = combine(value, make_float2(x, y));
  }
  if constexpr (kRowThreads > kWarp) {
    __shared__ float2 of_warps[kRowThreads / kWarp];
    const int thread = static_cast<int>(threadIdx.x);
    __syncthreads();  // the last reduction's values have been read
    if (thread % kWarp == 0) of_warps[thread / kWarp] = value;
    __syncthreads();
    value = of_warps[0];
    for (int i = 1; i < kRowThreads / kWarp; ++i) value = combine(value, of_warps[i]);
  }
  return value;
}

// A row and the threads that share it. Each has kWidth neighbouring columns, 16 bytes of T, of every kSpan.
template <class T, int kRowThreads>
struct Row {
  static constexpr int kWidth = 16 / sizeof(T), kSpan = kRowThreads * kWidth;

  const Norm& p;
  int64_t first;  // of its elements
  int lane;

  __device__ int column(int part) const { return part * kSpan + lane * kWidth; }
  __device__ int count(int part) const { return p.columns - column(part); }  // of columns from there on

  // s of a part, zeros beyond the row.
  __device__ __forceinline__ void load(int part, float (&values)[kWidth]) const {
    const int64_t at = first + column(part);
    load_together(static_cast<const T*>(p.x) + at, values, count(part));
    if (!p.residual) return;
    float residual[kWidth];
    load_together(static_cast<const T*>(p.residual) + at, residual, count(part));
    for (int i = 0; i < kWidth; ++i) values[i] += residual[i];
  }

  __device__ __forceinline__ void store_sum(int part, const float (&values)[kWidth]) const {
    if (p.sum) store_together(static_cast<T*>(p.sum) + first + column(part), values, count(part));
  }

  // y of a part, from s.
  __device__ __forceinline__ void normalize(int part, float mean, float correction, float inverse_deviation,
                                            float (&values)[kWidth]) const {
    float gamma[kWidth], beta[kWidth];
    for (int i = 0; i < kWidth; ++i) gamma[i] = 1, beta[i] = 0;
    if (p.gamma) load_together(p.gamma + column(part), gamma, count(part));
    if (p.beta) load_together(p.beta + column(part), beta, count(part));
    for (int i = 0; i < kWidth; ++i) {
      values[i] = (values[i] - mean - correction) * inverse_deviation * gamma[i] + beta[i];
    }
  }

  __device__ __forceinline__ void store_y(int part, const float (&values)[kWidth]) const {
    if (!p.y) return;
    const int64_t at = first + column(part);
    if (p.half_output) {
      store_together(static_cast<half*>(p.y) + at, values, count(part));
    } else {
      store_together(static_cast<float*>(p.y) + at, values, count(part));
    }
  }

  __device__ __forceinline__ void scale(int part, float (&values)[kWidth]) const {
    float inverse[kWidth];
    for (int i = 0; i < kWidth; ++i) inverse[i] = p.q_inverse;
    if (p.q_inverse_vector) load_together(p.q_inverse_vector + column(part), inverse, count(part));
    for (int i = 0; i < kWidth; ++i) values[i] *= inverse[i];
  }

  __device__ __forceinline__ void store_q(int part, const float (&values)[kWidth], float inverse, int zero) const {
    uint8_t bytes[kWidth];
    for (int i = 0; i < kWidth; ++i) bytes[i] = requantize(values[i], inverse, zero);
    store_together(p.q + first + column(part), bytes, count(part));
  }
};

// The parts of a row: kParts of them in registers; 0: any number, computed anew for every pass.
template <class R, int kParts>
struct Parts {
  float kept[kParts ? kParts : 1][R::kWidth];

  // visit(part, values) for each part. `compute(part, values)` makes the values, unless they are kept.
  template <class Compute, class Visit>
  __device__ __forceinline__ void each(const R& row, Compute compute, Visit visit) {
    if constexpr (kParts != 0) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        if (row.count(part) > 0) visit(part, kept[part]);
      }
    } else {
      for (int part = 0; row.count(part) > 0; ++part) {
        compute(part, kept[0]);
        visit(part, kept[0]);
      }
    }
  }
};

// A row by kRowThreads threads: a warp, of eight in a block, up to 1024 columns, else the block.
template <class T, int kRowThreads, int kParts>
__global__ void __launch_bounds__(kThreads) norm_kernel(Norm p) {
  using R = Row<T, kRowThreads>;
  constexpr int kBlockRows = kThreads / kRowThreads;
  const int thread = static_cast<int>(threadIdx.x);
  const float per_column = 1.f / static_cast<float>(p.columns);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBlockRows + thread / kRowThreads; i < p.rows;
       i += static_cast<int64_t>(gridDim.x) * kBlockRows) {
    const R row{p, i * p.columns, thread % kRowThreads};
    const auto load = [&](int part, float(&s)[R::kWidth]) { row.load(part, s); };
    Parts<R, kParts> parts;
    for (int part = 0; part < kParts; ++part) load(part, parts.kept[part]);

    float2 sums = make_float2(0, 0);
    parts.each(row, load, [&](int part, const float(&s)[R::kWidth]) {
      for (int j = 0; j < R::kWidth; ++j) sums.x += s[j];
      row.store_sum(part, s);
    });
    const float mean = p.centred ? reduce<kRowThreads>(sums, Add()).x * per_column : 0.f;

    sums = make_float2(0, 0);
    parts.each(row, load, [&](int part, const float(&s)[R::kWidth]) {
      for (int j = 0; j < R::kWidth; ++j) {
        const float centred = j < row.count(part) ? s[j] - mean : 0.f;
        sums.x += centred, sums.y += centred * centred;
      }
    });
    sums = reduce<kRowThreads>(sums, Add());
    const float correction = p.centred ? sums.x * per_column : 0.f;
    const float variance = fmaxf(sums.y * per_column - correction * correction, 0.f);
    const float inverse_deviation = 1.f / sqrtf(variance + p.epsilon);

    float2 range = make_float2(0, 0);
    const auto finish = [&](int part, float(&s)[R::kWidth]) {
      row.normalize(part, mean, correction, inverse_deviation, s);
      row.store_y(part, s);
      if (!p.q) return;
      row.scale(part, s);
      if (!p.dynamic) return row.store_q(part, s, 1.f, p.q_zero);
      for (int j = 0; j < R::kWidth; ++j) {
        if (j < row.count(part)) range = Range()(range, make_float2(s[j], s[j]));
      }
    };
    parts.each(row, load, finish);
    if (!p.q || !p.dynamic) continue;

    range = reduce<kRowThreads>(range, Range());
    const float scale = fmaxf((range.y - range.x) * (1.f / 255), kLeastScale);
    const int zero = requantize(-range.x, 1.f / scale, 0);
    const auto again = [&](int part, float(&s)[R::kWidth]) {
      row.load(part, s);
      row.normalize(part, mean, correction, inverse_deviation, s);
      row.scale(part, s);
    };
    parts.each(row, again, [&](int part, const float(&s)[R::kWidth]) { row.store_q(part, s, 1.f / scale, zero); });
    if (row.lane == 0) p.row_scale[i] = scale, p.row_zero[i] = static_cast<uint8_t>(zero);
  }
}

template <class T, int kRowThreads, int kParts>
void launch_norm(const Norm& arguments, void* stream) {
  constexpr int kBlockRows = kThreads / kRowThreads;
  constexpr int64_t kMostBlocks = 1 << 20;  // the rest of the rows by the same blocks
  const int64_t blocks = std::min((arguments.rows + kBlockRows - 1) / kBlockRows, kMostBlocks);
  OC_LAUNCH((norm_kernel<T, kRowThreads, kParts>), dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream,
            arguments);
}

// The fewest registers that hold a row: 8, 16 or 32 columns of a thread.
template <class T>
void launch_type(const Norm& arguments, void* stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const int columns = arguments.columns;
  if (columns <= kWarp * 8) return launch_norm<T, kWarp, 8 / kWidth>(arguments, stream);
  if (columns <= kWarp * 16) return launch_norm<T, kWarp, 16 / kWidth>(arguments, stream);
  if (columns <= kWarp * 32) return launch_norm<T, kWarp, 32 / kWidth>(arguments, stream);
  if (columns <= kThreads * 8) return launch_norm<T, kThreads, 8 / kWidth>(arguments, stream);
  if (columns <= kThreads * 16) return launch_norm<T, kThreads, 16 / kWidth>(arguments, stream);
  if (columns <= kThreads * 32) return launch_norm<T, kThreads, 32 / kWidth>(arguments, stream);
  launch_norm<T, kThreads, 0>(arguments, stream);
}

}  // namespace

void norm(const Norm& arguments, void* stream) {
  if (arguments.rows <= 0) return;
  if (arguments.half_input) {
    launch_type<half>(arguments, stream);
  } else {
    launch_type<float>(arguments, stream);
  }
}

}  // namespace oc::cuda
