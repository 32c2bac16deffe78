// What an operator is written against: its attributes and constants when it is made, its tensors when it runs.
#pragma once

#include <cstring>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort/abi.hpp"

namespace oc {

using ort::ElementType;

constexpr ElementType kU8 = ElementType::kUint8, kS8 = ElementType::kInt8, kF32 = ElementType::kFloat,
                      kI32 = ElementType::kInt32, kI64 = ElementType::kInt64, kAny = ElementType::kUndefined;

// What a model did wrong; becomes the status, and so the exception, that the runtime reports.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool condition, const char* message) {
  if (!condition) throw Error(message);
}

// A tensor of the runtime, borrowed.
struct Tensor {
  void* data = nullptr;
  ElementType type = kAny;
  std::vector<int64_t> shape;

  int64_t size() const {
    int64_t count = 1;
    for (int64_t d : shape) count *= d;
    return count;
  }
  int rank() const { return static_cast<int>(shape.size()); }
  int64_t dim(int axis) const { return shape[axis < 0 ? shape.size() + axis : axis]; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// Copies bytes between memories, on the host or on a device, and waits until they are there.
using Copy = void (*)(void* to, const void* from, size_t bytes);

// Memory of the runtime's own allocators; given back when it goes out of scope.
class Memory {
 public:
  Memory() = default;
  Memory(const ort::Api& api, ort::OrtAllocator* allocator, size_t bytes);
  // For one run of a kernel, on its stream: what is given the memory after it comes behind it on that stream.
  Memory(const ort::Api& api, ort::OrtAllocator* allocator, const ort::OrtKernelContext* context, size_t bytes);
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();
  void* data() const { return data_; }

 private:
  const ort::Api* api_ = nullptr;
  ort::OrtAllocator* allocator_ = nullptr;
  void* data_ = nullptr;
};

class Context;

// Where a kernel's memory comes from; must outlive it.
class Allocator {
 public:
  Allocator(const ort::Api& api, ort::OrtAllocator* allocator) : api_(api), allocator_(allocator) {}
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;
  ~Allocator() { api_.ReleaseAllocator(allocator_); }
  // Aligned to 16 bytes at least; null for none.
  Memory allocate(size_t bytes) const { return bytes ? Memory(api_, allocator_, bytes) : Memory(); }
  // The same for one run, on a device that has streams.
  Memory allocate(const Context& context, size_t bytes) const;

 private:
  const ort::Api& api_;
  ort::OrtAllocator* allocator_;
};

// The node as it is when its kernel is made. Constants stay valid as long as the kernel, but where they are copied from
// a device: then, as long as this.
class Info {
 public:
  Info(const ort::Api& api, const ort::OrtKernelInfo* info, Copy from_device = nullptr)
      : api_(api), info_(info), from_device_(from_device) {}

  int64_t integer(const char* name, int64_t fallback) const;
  float real(const char* name, float fallback) const;
  std::string text(const char* name, const char* fallback) const;
  std::vector<int64_t> integers(const char* name, std::initializer_list<int64_t> fallback) const;
  size_t input_count() const;

  // The constant input at `index`; nothing where it is absent or computed.
  std::optional<Tensor> constant(size_t index) const;
  // The same, of this type; an error naming `name` where there is none or it has another type.
  Tensor constant(size_t index, ElementType type, const char* name) const;
  // The one value of a constant; `fallback` where it is absent.
  float scalar(size_t index, const char* name, float fallback) const;
  uint8_t zero_point(size_t index, const char* name, uint8_t fallback) const;

  // Of the memory that the kernel's tensors are in.
  std::unique_ptr<Allocator> allocator() const;

 private:
  const ort::Api& api_;
  const ort::OrtKernelInfo* info_;
  Copy from_device_;
  mutable std::deque<std::vector<char>> copies_;
};

// One run of a kernel.
class Context {
 public:
  // aligned: tensors that do not begin at a multiple of 16 bytes, as parts of others may, are refused.
  Context(const ort::Api& api, ort::OrtKernelContext* context, bool aligned = false)
      : api_(api), context_(context), aligned_(aligned) {}

  size_t input_count() const;
  size_t output_count() const;
  // Whether an optional input is given.
  bool has(size_t index) const;
  Tensor input(size_t index) const;
  // An output of this shape; without data where the node does not ask for it.
  Tensor output(size_t index, const std::vector<int64_t>& shape, ElementType type) const;
  // To be called when all outputs have been: an error where the node asks for another one, which operators behind it
  // would read where there is nothing.
  void check_outputs() const;
  // The device's stream that kernels are to be launched on, a cudaStream_t.
  void* stream() const;

  // fn(i) for i in [0, total), on the session's threads. An exception in any of them is thrown here.
  template <class Fn>
  void parallel(size_t total, Fn&& fn) const {
    if (total == 1) return fn(size_t{0});
    if (total) run(total, [](void* f, size_t i) { (*static_cast<std::remove_reference_t<Fn>*>(f))(i); }, &fn);
  }

 private:
  friend class Allocator;
  void run(size_t total, void (*fn)(void*, size_t), void* user_data) const;

  const ort::Api& api_;
  void check_alignment(const Tensor& tensor) const;

  ort::OrtKernelContext* context_;
  bool aligned_;
  mutable uint64_t given_ = 0;  // a bit for each output
};

struct Kernel {
  virtual ~Kernel() = default;
  virtual void compute(Context& context) = 0;
};

struct Port {
  ElementType type;
  ort::Characteristic characteristic = ort::kRequired;
};

// Whose kernels run where an operator's are; the runtime's name of it.
struct Provider {
  const char* name;
  Copy from_device;  // null where its tensors are in the host's memory
};
constexpr Provider kHost = {"CPUExecutionProvider", nullptr};

// The signature of an operator and how its kernels are made. Types of kAny are checked by the kernel.
struct OpDefinition {
  const char* name;
  std::vector<Port> inputs, outputs;
  std::unique_ptr<Kernel> (*create)(const Info&);
  Provider provider = kHost;
  std::vector<size_t> host_inputs = {};  // inputs that stay in the host's memory whatever the provider
};

template <class K>
std::unique_ptr<Kernel> make(const Info& info) {
  return std::make_unique<K>(info);
}

constexpr ort::Characteristic optional = ort::kOptional, variadic = ort::kVariadic;

}  // namespace oc
