// What operators on a device are written with. They launch kernels of csrc/cuda on the runtime's stream, keep their
// constants in memory of the runtime's allocator, and never wait.
#pragma once

#include <utility>

#include "cuda/runtime.hpp"
#include "ops/registry.hpp"

namespace oc {

#ifdef OC_CUDA_EMULATED
// For tests: the kernels run on the host, on tensors of the CPU's provider.
constexpr Provider kDevice = {"CPUExecutionProvider", cuda::copy};
#else
constexpr Provider kDevice = {"CUDAExecutionProvider", cuda::copy};
#endif

// Of kernels whose grid has tiles of outputs in its second dimension.
constexpr int64_t kMostDeviceOutputs = 1 << 20;

// Memory on the device.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(Memory memory) : memory_(std::move(memory)) {}
  template <class T = void>
  T* as() const {
    return static_cast<T*>(memory_.data());
  }

 private:
  Memory memory_;
};

class DeviceKernel : public Kernel {
 public:
  explicit DeviceKernel(const Info& info) : allocator_(info.allocator()), multiprocessors_(cuda::multiprocessors()) {}

  // One run, as Kernel::compute. Errors of its launches are found by the caller.
  virtual void run(Context& context) = 0;

  void compute(Context& context) final {
    run(context);
    if (const char* error = cuda::last_error()) throw Error(std::string("a CUDA kernel did not start: ") + error);
  }

  // `count` values of the host, copied.
  template <class T>
  DeviceBuffer upload(const T* values, size_t count) const {
    DeviceBuffer buffer(allocator_->allocate(count * sizeof(T)));
    if (count) cuda::copy(buffer.as(), values, count * sizeof(T));
    return buffer;
  }
  template <class Values>
  DeviceBuffer upload(const Values& values) const {
    return upload(values.data(), values.size());
  }

  // For one run; not initialized. Freed when it goes out of scope, which may be before the kernels that were given it
  // have run: what is given the same memory next comes behind them on the stream.
  DeviceBuffer allocate(const Context& context, size_t bytes) const {
#ifdef OC_CUDA_EMULATED
    (void)context;  // the CPU's provider has no stream
    return DeviceBuffer(allocator_->allocate(bytes));
#else
    return DeviceBuffer(allocator_->allocate(context, bytes));
#endif
  }

  int multiprocessors() const { return multiprocessors_; }

 private:
  std::unique_ptr<Allocator> allocator_;
  int multiprocessors_;
};

// The operator of this definition with another kernel, on the device. Inputs that are only read when the kernel is made
// stay on the host.
inline OpDefinition on_device(OpDefinition definition, std::unique_ptr<Kernel> (*create)(const Info&),
                              std::vector<size_t> host_inputs) {
  definition.create = create;
  definition.provider = kDevice;
  definition.host_inputs = std::move(host_inputs);
  return definition;
}

}  // namespace oc
