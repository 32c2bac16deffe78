// What linear layers on a device do to their sums: constants of the epilogue, and the outputs of QLinear's kind.
#pragma once

#include "cuda/epilogue_arguments.hpp"
#include "ops/cuda/quantized_input.hpp"

namespace oc {

// The activation of this name; throws Error where there is none.
cuda::Activation device_activation(const std::string& name);

// Scales and bias of a layer of n outputs.
class LayerConstants {
 public:
  // weight_sums: [n], on the host. w_scale, bias: indices of these inputs. Throws Error where they do not fit.
  LayerConstants(const Info& info, const DeviceKernel& kernel, const QuantizedInput& x, int n,
                 const std::vector<int32_t>& weight_sums, size_t w_scale, size_t bias);

  // All but where the results go.
  cuda::Epilogue epilogue(const QuantizedInput::Rows& x) const;

 private:
  int n_, x_zero_;
  bool has_bias_ = false;
  DeviceBuffer weight_sums_, scale_, bias_;
};

// The outputs y, y_float, y_row_scale and y_row_zero_point of QLinear and QSparseLinear, and the inputs residual,
// y_scale, y_zero_point and table, from `first` on.
class LinearResults {
 public:
  LinearResults(const Info& info, const DeviceKernel& kernel, int n, size_t first);

  // Calls multiply(epilogue), which launches the layer's kernels, with what this adds to the epilogue.
  template <class Multiply>
  void run(Context& context, const DeviceKernel& kernel, const QuantizedInput::Rows& x, cuda::Epilogue epilogue,
           Multiply&& multiply) const {
    Outputs outputs = add(context, kernel, x, epilogue);
    if (x.m == 0) return;
    multiply(std::as_const(epilogue));
    finish(context, x, epilogue, outputs);
  }

 private:
  struct Outputs {
    Tensor y, scale, zero;
    DeviceBuffer floats;
  };
  Outputs add(Context& context, const DeviceKernel& kernel, const QuantizedInput::Rows& x,
              cuda::Epilogue& epilogue) const;
  void finish(Context& context, const QuantizedInput::Rows& x, const cuda::Epilogue& epilogue,
              const Outputs& outputs) const;

  int n_, zero_;
  size_t residual_;
  bool quantized_, dynamic_;
  cuda::Activation activation_;
  float inverse_ = 1;
  DeviceBuffer inverse_vector_, table_;
};

}  // namespace oc
