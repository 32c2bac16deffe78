// Weights [N, K] of linear layers on a device, dense or 2:4 sparse.
#pragma once

#include "cuda/linear.hpp"
#include "ops/cuda/layer_output.hpp"

namespace oc {

class DenseWeights {
 public:
  // w: s8 [n, k], on the host. Of every four weights of an output at most two not zero: the tensor cores then skip the
  // others.
  DenseWeights(const DeviceKernel& kernel, const int8_t* w, int64_t n, int64_t k);
  // The constant input at `index`, named w.
  DenseWeights(const Info& info, const DeviceKernel& kernel, size_t index)
      : DenseWeights(kernel, matrix(info.constant(index, kS8, "w"))) {}

  // x: [m, k], on the device.
  void multiply(Context& context, const DeviceKernel& kernel, const uint8_t* x, int64_t m,
                const cuda::Epilogue& epilogue) const;

  int n() const { return n_; }
  int k() const { return k_; }
  // [n], on the host.
  const std::vector<int32_t>& sums() const { return sums_; }

 private:
  static const Tensor& matrix(const Tensor& w) {
    require(w.rank() == 2, "w must be [N, K]");
    return w;
  }
  DenseWeights(const DeviceKernel& kernel, const Tensor& w)
      : DenseWeights(kernel, w.as<int8_t>(), w.dim(0), w.dim(1)) {}

  int n_ = 0, k_ = 0;
  bool sparse_ = false;
  std::vector<int32_t> sums_;
  DeviceBuffer packed_;
};

}  // namespace oc
