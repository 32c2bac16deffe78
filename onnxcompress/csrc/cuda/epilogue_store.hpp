// The epilogue of four neighbours in a row at once, and how a warp's sums come to lie that way.
#pragma once

#include "cuda/epilogue.hpp"

namespace oc::cuda {

// Can four columns that begin at a multiple of 4 be moved as one, in all that the epilogue reads and writes?
inline bool four_at_once(const Epilogue& e) {
  const auto aligned = [](const void* address, uintptr_t to) { return reinterpret_cast<uintptr_t>(address) % to == 0; };
  return e.columns % 4 == 0 && aligned(e.y, 4) && aligned(e.residual_bytes, 4) && aligned(e.y_float, 16) &&
         aligned(e.residual_float, 16);
}

struct FourColumns {
  EpilogueColumn column[4];
};

__device__ __forceinline__ FourColumns load_four(const Epilogue& e, int n, int count) {
  FourColumns four;
#pragma unroll
  for (int i = 0; i < 4; ++i) four.column[i] = load_column(e, n + (i < count ? i : 0));
  return four;
}

// The epilogue of columns n .. n + count - 1 of row m, count of 1 to 4. wide: four_at_once(e), n a multiple of 4 and
// count 4.
__device__ __forceinline__ void finish_four(const Epilogue& e, const FourColumns& four, const int4& sums, int64_t m,
                                            int n, int count, bool wide) {
  const int sum[4] = {sums.x, sums.y, sums.z, sums.w};
  const int64_t at = m * e.columns + n;
  if (!wide || e.channels_first_pixels) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) finish_sum(e, four.column[i], sum[i], m, n + i);
    }
    return;
  }
  float value[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) value[i] = epilogue_value(e, four.column[i], sum[i], m);
  if (e.residual_float) {
    const float4 residual = *reinterpret_cast<const float4*>(e.residual_float + at);
    value[0] += residual.x, value[1] += residual.y, value[2] += residual.z, value[3] += residual.w;
  }
  const uint32_t residual = e.residual_bytes ? *reinterpret_cast<const uint32_t*>(e.residual_bytes + at) : 0;
  if (e.y) {
    uint32_t bytes = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      bytes |= static_cast<uint32_t>(
                   epilogue_byte(e, four.column[i], value[i], static_cast<uint8_t>(residual >> 8 * i)))
               << 8 * i;
    }
    *reinterpret_cast<uint32_t*>(e.y + at) = bytes;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (e.residual_bytes) value[i] += residual_value(e, static_cast<uint8_t>(residual >> 8 * i));
  }
  *reinterpret_cast<float4*>(e.y_float + at) = make_float4(value[0], value[1], value[2], value[3]);
}

}  // namespace oc::cuda
