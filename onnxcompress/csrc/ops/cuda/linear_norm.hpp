// The run of linear layers that end in a layer normalization, with weights of any kind.
#pragma once

#include "ops/cuda/layer_output.hpp"
#include "ops/cuda/normalization.hpp"
#include "ops/qlinear_layer.hpp"

namespace oc {

// layer norm(x * w^T + bias + residual); residual: the index of this input.
template <class Weights>
void run_linear_norm(Context& context, const DeviceKernel& kernel, const QuantizedInput& input, const Weights& weights,
                     const LayerConstants& constants, const DeviceNormalization& normalization, size_t residual) {
  const auto x = input.read(context, kernel, weights.n(), weights.k());
  cuda::Norm p = normalization.outputs(context, x.shape);
  if (x.m == 0) return;
  cuda::Epilogue epilogue = constants.epilogue(x);
  epilogue.residual_float = residual_input(context, residual, x.shape);
  // The sums go straight into `sum`, where it is wanted.
  const DeviceBuffer floats = p.sum ? DeviceBuffer() : kernel.allocate(context, p.rows * p.columns * sizeof(float));
  epilogue.y_float = p.sum ? static_cast<float*>(p.sum) : floats.as<float>();
  weights.multiply(context, kernel, x.bytes, x.m, epilogue);
  p.x = epilogue.y_float, p.sum = nullptr;
  cuda::norm(p, context.stream());
}

}  // namespace oc
