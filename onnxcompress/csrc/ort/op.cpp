#include "ort/op.hpp"

#include <algorithm>
#include <atomic>
#include <climits>
#include <exception>
#include <new>

namespace oc {

namespace {

struct StatusGuard {
  const ort::Api& api;
  ort::OrtStatus* status;
  ~StatusGuard() {
    if (status) api.ReleaseStatus(status);
  }
};

void check(const ort::Api& api, ort::OrtStatus* status) {
  if (!status) return;
  std::string message = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  throw Error(message);
}

// Whether a call that reads an attribute found it.
bool found(const ort::Api& api, ort::OrtStatus* status) {
  StatusGuard guard{api, status};
  return status == nullptr;
}

// The runtime counts elements without an overflow, but not parts of a shape: what follows an axis of size 0 may have
// any size. Kernels count such parts, times factors of up to 2^14, and sizes of axes in ints.
void check_shape(const std::vector<int64_t>& shape) {
  constexpr int64_t kMostElements = int64_t{1} << 48;
  int64_t count = 1;
  for (int64_t d : shape) {
    const int64_t size = std::max<int64_t>(d, 1);
    require(d >= 0 && d <= INT_MAX && count <= kMostElements / size, "a tensor's shape is out of range");
    count *= size;
  }
}

Tensor borrow(const ort::Api& api, const ort::OrtValue* value) {
  Tensor tensor;
  check(api, api.GetTensorMutableData(const_cast<ort::OrtValue*>(value), &tensor.data));
  ort::OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, api.GetTensorTypeAndShape(value, &info));
  size_t rank = 0;
  ort::OrtStatus* status = api.GetTensorElementType(info, &tensor.type);
  if (!status) status = api.GetDimensionsCount(info, &rank);
  tensor.shape.resize(rank);
  if (!status) status = api.GetDimensions(info, tensor.shape.data(), rank);
  api.ReleaseTensorTypeAndShapeInfo(info);
  check(api, status);
  check_shape(tensor.shape);
  return tensor;
}

size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kUint8:
    case ElementType::kInt8:
    case ElementType::kBool: return 1;
    case ElementType::kFloat16: return 2;
    case ElementType::kFloat:
    case ElementType::kInt32: return 4;
    case ElementType::kInt64: return 8;
    default: throw Error("a constant has a type that no operator takes");
  }
}

}  // namespace

Memory::Memory(const ort::Api& api, ort::OrtAllocator* allocator, size_t bytes) : api_(&api), allocator_(allocator) {
  check(api, api.AllocatorAlloc(allocator, bytes, &data_));
  if (!data_) throw std::bad_alloc();
}

Memory::Memory(const ort::Api& api, ort::OrtAllocator* allocator, const ort::OrtKernelContext* context, size_t bytes)
    : api_(&api), allocator_(allocator) {
  const ort::OrtMemoryInfo* info = nullptr;
  check(api, api.AllocatorGetInfo(allocator, &info));
  check(api, api.KernelContext_GetScratchBuffer(context, info, bytes, &data_));
  if (!data_) throw std::bad_alloc();
}

Memory Allocator::allocate(const Context& context, size_t bytes) const {
  return bytes ? Memory(api_, allocator_, context.context_, bytes) : Memory();
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(api_, other.api_);
  std::swap(allocator_, other.allocator_);
  std::swap(data_, other.data_);
  return *this;
}

Memory::~Memory() {
  if (data_) StatusGuard{*api_, api_->AllocatorFree(allocator_, data_)};
}

int64_t Info::integer(const char* name, int64_t fallback) const {
  int64_t value = 0;
  return found(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value)) ? value : fallback;
}

float Info::real(const char* name, float fallback) const {
  float value = 0;
  return found(api_, api_.KernelInfoGetAttribute_float(info_, name, &value)) ? value : fallback;
}

std::string Info::text(const char* name, const char* fallback) const {
  size_t size = 0;
  if (!found(api_, api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size)) || size == 0) return fallback;
  std::string value(size, '\0');
  check(api_, api_.KernelInfoGetAttribute_string(info_, name, value.data(), &size));
  value.resize(size - 1);  // the size counts the terminating zero
  return value;
}

std::vector<int64_t> Info::integers(const char* name, std::initializer_list<int64_t> fallback) const {
  size_t size = 0;
  if (!found(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size))) return fallback;
  std::vector<int64_t> values(size);
  if (size) check(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, values.data(), &size));
  return values;
}

size_t Info::input_count() const {
  size_t count = 0;
  check(api_, api_.KernelInfo_GetInputCount(info_, &count));
  return count;
}

std::optional<Tensor> Info::constant(size_t index) const {
  if (index >= input_count()) return {};
  int is_constant = 0;
  const ort::OrtValue* value = nullptr;
  check(api_, api_.KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value));
  if (!is_constant || !value) return {};
  Tensor tensor = borrow(api_, value);
  if (!from_device_) return tensor;
  const std::vector<char>& copy = copies_.emplace_back(tensor.size() * element_bytes(tensor.type));
  if (!copy.empty()) from_device_(copies_.back().data(), tensor.data, copy.size());
  tensor.data = copies_.back().data();
  return tensor;
}

Tensor Info::constant(size_t index, ElementType type, const char* name) const {
  auto tensor = constant(index);
  if (!tensor) throw Error(std::string(name) + " must be a constant");
  if (tensor->type != type) throw Error(std::string(name) + " has the wrong element type");
  return *tensor;
}

float Info::scalar(size_t index, const char* name, float fallback) const {
  auto tensor = constant(index);
  if (!tensor) return fallback;
  if (tensor->type != kF32 || tensor->size() != 1) throw Error(std::string(name) + " must be one float");
  return *tensor->as<float>();
}

uint8_t Info::zero_point(size_t index, const char* name, uint8_t fallback) const {
  auto tensor = constant(index);
  if (!tensor) return fallback;
  if (tensor->type != kU8 || tensor->size() != 1) throw Error(std::string(name) + " must be one uint8");
  return *tensor->as<uint8_t>();
}

std::unique_ptr<Allocator> Info::allocator() const {
  ort::OrtAllocator* allocator = nullptr;
  check(api_, api_.KernelInfoGetAllocator(info_, ort::kDefaultMemory, &allocator));
  return std::make_unique<Allocator>(api_, allocator);
}

void* Context::stream() const {
  void* stream = nullptr;
  check(api_, api_.KernelContext_GetGPUComputeStream(context_, &stream));
  return stream;
}

size_t Context::input_count() const {
  size_t count = 0;
  check(api_, api_.KernelContext_GetInputCount(context_, &count));
  return count;
}

size_t Context::output_count() const {
  size_t count = 0;
  check(api_, api_.KernelContext_GetOutputCount(context_, &count));
  return count;
}

bool Context::has(size_t index) const {
  if (index >= input_count()) return false;
  const ort::OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetInput(context_, index, &value));
  return value != nullptr;
}

Tensor Context::input(size_t index) const {
  const ort::OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetInput(context_, index, &value));
  if (!value) throw Error("input " + std::to_string(index) + " is missing");
  const Tensor tensor = borrow(api_, value);
  check_alignment(tensor);
  return tensor;
}

Tensor Context::output(size_t index, const std::vector<int64_t>& shape, ElementType type) const {
  check_shape(shape);
  Tensor tensor{nullptr, type, shape};
  if (index >= output_count()) return tensor;
  given_ |= uint64_t{1} << index;
  ort::OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetOutput(context_, index, shape.data(), shape.size(), &value));
  if (value) check(api_, api_.GetTensorMutableData(value, &tensor.data));
  check_alignment(tensor);
  return tensor;
}

void Context::check_alignment(const Tensor& tensor) const {
  constexpr uintptr_t kBytes = 16;
  require(!aligned_ || reinterpret_cast<uintptr_t>(tensor.data) % kBytes == 0,
          "a tensor on a device must begin at a multiple of 16 bytes");
}

void Context::check_outputs() const {
  const int64_t nothing = 0;
  for (size_t i = 0; i < output_count(); i++) {
    if (given_ >> i & 1) continue;
    ort::OrtValue* value = nullptr;
    check(api_, api_.KernelContext_GetOutput(context_, i, &nothing, 1, &value));
    if (value) throw Error("output " + std::to_string(i) + " is not computed where the node is given like this");
  }
}

void Context::run(size_t total, void (*fn)(void*, size_t), void* user_data) const {
  // The runtime's threads must not see an exception: the first one is carried back to the caller.
  struct Task {
    void (*fn)(void*, size_t);
    void* user_data;
    std::atomic<bool> failed{false};
    std::exception_ptr error{};
  } task{fn, user_data};
  auto guarded = [](void* t, size_t i) {
    auto& self = *static_cast<Task*>(t);
    try {
      self.fn(self.user_data, i);
    } catch (...) {
      if (!self.failed.exchange(true)) self.error = std::current_exception();
    }
  };
  check(api_, api_.KernelContext_ParallelFor(context_, guarded, total, 0, &task));
  if (task.error) std::rethrow_exception(task.error);
}

}  // namespace oc
