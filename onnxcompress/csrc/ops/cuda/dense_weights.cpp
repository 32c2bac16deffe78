#include "ops/cuda/dense_weights.hpp"

#include "cuda/linear_pack.hpp"
#include "cuda/sparse24.hpp"
#include "cuda/sparse24_pack.hpp"

namespace oc {

DenseWeights::DenseWeights(const DeviceKernel& kernel, const int8_t* w, int64_t n, int64_t k) {
  constexpr int64_t kMostN = 1 << 30, kMostK = 65536;
  require(n > 0 && k > 0, "the weights are empty");
  require(n <= kMostN && k <= kMostK, "w is too large");
  n_ = static_cast<int>(n), k_ = static_cast<int>(k);
  sums_.resize(n_);
  std::vector<int8_t> packed(cuda::packed_sparse24_bytes(n_, k_));
  sparse_ = cuda::pack_sparse24(w, n_, k_, packed.data(), sums_.data());
  if (!sparse_) {
    packed.resize(cuda::packed_linear_bytes(n_, k_));
    cuda::pack_linear(w, n_, k_, packed.data(), sums_.data());
  }
  packed_ = kernel.upload(packed);
}

void DenseWeights::multiply(Context& context, const DeviceKernel& kernel, const uint8_t* x, int64_t m,
                            const cuda::Epilogue& epilogue) const {
  cuda::Linear layer{x, packed_.as<int8_t>(), m, n_, k_, kernel.multiprocessors(), nullptr, epilogue};
  const DeviceBuffer scratch = kernel.allocate(context, cuda::linear_scratch_bytes(m, n_, k_, layer.multiprocessors));
  layer.scratch = scratch.as<int32_t>();
  (sparse_ ? cuda::sparse24 : cuda::linear)(layer, context.stream());
}

}  // namespace oc
