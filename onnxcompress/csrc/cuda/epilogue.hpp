// What becomes of the integer sums of a layer of u8 activations and s8 weights.
//
//   value  = activation((sum - x_zero * weight_sum) * scale + bias)
//   real   = value + residual                                        (residual_after: value)
//   bytes  = table[saturate(round(real / y_scale) + y_zero)]         or, without y: y_float = real
//   bytes  = saturate(round(((bytes - inner_zero) * inner_scale + residual) / final_scale) + final_zero)
//                                                                    (only with residual_after)
// Rounding is half to even; not-a-number becomes 0. Scales are single precision: a result may differ by one step from
// one that is computed in double precision, where that is within rounding of the middle between two steps.
#pragma once

#include <cstdint>

#include "cuda/activate.hpp"
#include "cuda/device.hpp"
#include "cuda/epilogue_arguments.hpp"

namespace oc::cuda {

// The constants of one column, to be loaded once for all rows that a thread has of it.
struct EpilogueColumn {
  float scale, bias, y_inverse;
  int weight_sum;
};

__device__ inline EpilogueColumn load_column(const Epilogue& e, int n) {
  return {e.scale[n], e.bias ? e.bias[n] : 0.f, e.y_inverse_vector ? e.y_inverse_vector[n] : e.y_inverse,
          e.weight_sums[n]};
}

// saturate(round(x * inverse) + zero) to a byte. The limits come first: the conversion is then exact for all floats.
__device__ inline uint8_t requantize(float x, float inverse, int zero) {
  const float low = static_cast<float>(-zero), high = static_cast<float>(255 - zero);
  return static_cast<uint8_t>(__float2int_rn(fminf(fmaxf(x * inverse, low), high)) + zero);
}

// activation(...) of a sum of row m, without a residual.
__device__ inline float epilogue_value(const Epilogue& e, const EpilogueColumn& column, int sum, int64_t m) {
  const int zero = e.row_scale ? e.row_zero[m] : e.x_zero;
  // Modulo 2^32, as the sums themselves: the difference fits where the products' parts need not.
  const int centred = static_cast<int>(static_cast<uint32_t>(sum) - static_cast<uint32_t>(zero) *
                                                                        static_cast<uint32_t>(column.weight_sum));
  float real = static_cast<float>(centred) * column.scale;
  if (e.row_scale) real *= e.row_scale[m];
  return activate(e.activation, real + column.bias);
}

__device__ inline float residual_value(const Epilogue& e, uint8_t residual) {
  return static_cast<float>(residual - e.residual_zero) * e.residual_scale;
}

// The byte of a value; `residual` is that of residual_bytes, not looked at where there is none.
__device__ inline uint8_t epilogue_byte(const Epilogue& e, const EpilogueColumn& column, float value,
                                        uint8_t residual) {
  const float added = e.residual_bytes ? residual_value(e, residual) : 0.f;
  uint8_t y = requantize(e.residual_after ? value : value + added, column.y_inverse, e.y_zero);
  if (e.table) y = e.table[y];
  if (!e.residual_after) return y;
  const float inner = static_cast<float>(y - e.inner_zero) * e.inner_scale;
  return requantize(inner + added, e.final_inverse, e.final_zero);
}

// Where (m, n) lies in y_float.
__device__ inline int64_t float_index(const Epilogue& e, int64_t m, int n) {
  if (!e.channels_first_pixels) return m * e.columns + n;
  const int64_t image = m / e.channels_first_pixels, pixel = m - image * e.channels_first_pixels;
  return (image * e.columns + n) * e.channels_first_pixels + pixel;
}

// The whole epilogue of one sum, reading and writing global memory directly.
__device__ inline void finish_sum(const Epilogue& e, const EpilogueColumn& column, int sum, int64_t m, int n) {
  const int64_t at = m * e.columns + n;
  float value = epilogue_value(e, column, sum, m);
  if (e.residual_float) value += e.residual_float[at];
  if (e.y) {
    e.y[at] = epilogue_byte(e, column, value, e.residual_bytes ? e.residual_bytes[at] : uint8_t{0});
  } else {
    if (e.residual_bytes) value += residual_value(e, e.residual_bytes[at]);
    e.y_float[float_index(e, m, n)] = value;
  }
}

}  // namespace oc::cuda
