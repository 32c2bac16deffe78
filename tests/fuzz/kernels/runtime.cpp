#include "runtime.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

extern "C" oc::ort::OrtStatus* RegisterCustomOps(oc::ort::OrtSessionOptions*, const oc::ort::OrtApiBase*);

// The runtime's types, as they are here.
namespace oc::ort {

struct OrtStatus {
  std::string message;
};

struct OrtTensorTypeAndShapeInfo {
  ElementType type;
  fuzz::Shape shape;
};

// A tensor whose memory ends where it ends, so that a byte beyond it is seen; without any where it is empty, as the
// runtime's are.
struct OrtValue {
  ElementType type;
  fuzz::Shape shape;
  std::vector<uint8_t> copy;  // what an input must still hold
  std::unique_ptr<uint8_t, decltype(&std::free)> data{nullptr, &std::free};
  size_t bytes = 0;

  void allocate(size_t size) {
    bytes = size;
    if (size) data.reset(static_cast<uint8_t*>(std::malloc(size)));
  }
};

struct OrtKernelInfo {
  const fuzz::Node* node;
  std::vector<std::unique_ptr<OrtValue>> inputs;  // those that are constant
  size_t count;
};

struct OrtKernelContext {
  OrtKernelInfo* info;
  const OrtCustomOp* op;
  const fuzz::Node* node;
  std::vector<std::unique_ptr<OrtValue>> inputs;  // those that are computed
  std::vector<std::unique_ptr<OrtValue>> outputs;
  size_t output_count;
  uint8_t fill;
  bool backwards, no_memory = false;
};

}  // namespace oc::ort

namespace oc::fuzz {

namespace {

using namespace oc::ort;

constexpr int64_t kMostOutput = 4 << 20;  // more is memory that this runtime has not

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "fuzz_kernels: %s\n", what);
  std::abort();
}

OrtStatus* status(const char* message) { return new OrtStatus{message}; }

std::map<std::string, const OrtCustomOp*>& registered() {
  static std::map<std::string, const OrtCustomOp*> all;
  return all;
}

std::unique_ptr<OrtValue> value_of(const Input& input) {
  auto value = std::make_unique<OrtValue>();
  value->type = input.type, value->shape = input.shape, value->copy = input.content;
  value->allocate(input.content.size());
  if (value->bytes) std::memcpy(value->data.get(), input.content.data(), value->bytes);
  return value;
}

template <class T>
const T* attribute(const OrtKernelInfo* info, const char* name) {
  const auto found = info->node->attributes.find(name);
  return found == info->node->attributes.end() ? nullptr : std::get_if<T>(&found->second);
}

// The runtime's functions, by the names of ort/abi.hpp.
struct Functions {
  static OrtStatus* CreateStatus(OrtErrorCode, const char* message) { return status(message); }
  static const char* GetErrorMessage(const OrtStatus* s) { return s->message.c_str(); }
  static void ReleaseStatus(OrtStatus* s) { delete s; }
  static OrtStatus* CreateCustomOpDomain(const char*, OrtCustomOpDomain** out) {
    *out = reinterpret_cast<OrtCustomOpDomain*>(&registered());
    return nullptr;
  }
  static OrtStatus* CustomOpDomain_Add(OrtCustomOpDomain*, const OrtCustomOp* op) {
    registered().emplace(op->GetName(op), op);  // the first of those that differ in an element type
    return nullptr;
  }
  static OrtStatus* AddCustomOpDomain(OrtSessionOptions*, OrtCustomOpDomain*) { return nullptr; }

  static OrtStatus* GetTensorMutableData(OrtValue* value, void** out) {
    *out = value->data.get();
    return nullptr;
  }
  static OrtStatus* GetTensorTypeAndShape(const OrtValue* value, OrtTensorTypeAndShapeInfo** out) {
    *out = new OrtTensorTypeAndShapeInfo{value->type, value->shape};
    return nullptr;
  }
  static OrtStatus* GetTensorElementType(const OrtTensorTypeAndShapeInfo* info, ElementType* out) {
    *out = info->type;
    return nullptr;
  }
  static OrtStatus* GetDimensionsCount(const OrtTensorTypeAndShapeInfo* info, size_t* out) {
    *out = info->shape.size();
    return nullptr;
  }
  static OrtStatus* GetDimensions(const OrtTensorTypeAndShapeInfo* info, int64_t* values, size_t length) {
    std::copy_n(info->shape.begin(), std::min(length, info->shape.size()), values);
    return nullptr;
  }
  static void ReleaseTensorTypeAndShapeInfo(OrtTensorTypeAndShapeInfo* info) { delete info; }

  static OrtStatus* KernelInfoGetAttribute_float(const OrtKernelInfo* info, const char* name, float* out) {
    const auto* value = attribute<float>(info, name);
    if (value) *out = *value;
    return value ? nullptr : status("no such float");
  }
  static OrtStatus* KernelInfoGetAttribute_int64(const OrtKernelInfo* info, const char* name, int64_t* out) {
    const auto* value = attribute<int64_t>(info, name);
    if (value) *out = *value;
    return value ? nullptr : status("no such integer");
  }
  static OrtStatus* KernelInfoGetAttribute_string(const OrtKernelInfo* info, const char* name, char* out,
                                                  size_t* size) {
    const auto* value = attribute<std::string>(info, name);
    if (!value) return status("no such string");
    const size_t needed = value->size() + 1;
    if (out && *size < needed) return status("too little room");
    if (out) std::memcpy(out, value->c_str(), needed);
    *size = needed;
    return nullptr;
  }
  static OrtStatus* KernelInfoGetAttributeArray_int64(const OrtKernelInfo* info, const char* name, int64_t* out,
                                                      size_t* size) {
    const auto* values = attribute<Ints>(info, name);
    if (!values) return status("no such integers");
    if (out && *size < values->size()) return status("too little room");
    if (out) std::copy(values->begin(), values->end(), out);
    *size = values->size();
    return nullptr;
  }
  static OrtStatus* KernelInfo_GetInputCount(const OrtKernelInfo* info, size_t* out) {
    *out = info->count;
    return nullptr;
  }
  static OrtStatus* KernelInfoGetConstantInput_tensor(const OrtKernelInfo* info, size_t index, int* is_constant,
                                                      const OrtValue** out) {
    if (index >= info->count) return status("no such input");
    *out = info->inputs[index].get(), *is_constant = *out != nullptr;
    return nullptr;
  }

  static OrtStatus* KernelContext_GetInputCount(const OrtKernelContext* context, size_t* out) {
    *out = context->info->count;
    return nullptr;
  }
  static OrtStatus* KernelContext_GetOutputCount(const OrtKernelContext* context, size_t* out) {
    *out = context->output_count;
    return nullptr;
  }
  static OrtStatus* KernelContext_GetInput(const OrtKernelContext* context, size_t index, const OrtValue** out) {
    *out = nullptr;
    if (index >= context->info->count) return nullptr;
    *out = context->info->inputs[index] ? context->info->inputs[index].get() : context->inputs[index].get();
    return nullptr;
  }
  static OrtStatus* KernelContext_GetOutput(OrtKernelContext* context, size_t index, const int64_t* dims, size_t count,
                                            OrtValue** out) {
    *out = nullptr;
    if (index >= context->output_count) return status("no such output");
    if (!context->node->outputs[index]) return nullptr;
    const Shape shape(dims, dims + count);
    const ElementType type = context->op->GetOutputType(context->op, index);
    int64_t size = 0;
    if (!countable(shape, &size)) return status("not the shape of a tensor");
    auto& value = context->outputs[index];
    if (value) {
      if (value->shape != shape) fail("an output is asked for in two shapes");
    } else {
      context->no_memory = size > kMostOutput / static_cast<int64_t>(element_bytes(type));
      if (context->no_memory) return status("no memory for an output");
      value = std::make_unique<OrtValue>();
      value->type = type, value->shape = shape;
      value->allocate(size * element_bytes(type));
      if (value->bytes) std::memset(value->data.get(), context->fill, value->bytes);
    }
    *out = value.get();
    return nullptr;
  }
  static OrtStatus* KernelContext_GetGPUComputeStream(const OrtKernelContext*, void** out) {
    *out = nullptr;
    return nullptr;
  }
  static OrtStatus* KernelInfoGetAllocator(const OrtKernelInfo*, MemoryType, OrtAllocator** out) {
    *out = reinterpret_cast<OrtAllocator*>(new char);  // memory has no other owner: leaks are looked for
    return nullptr;
  }
  static void ReleaseAllocator(OrtAllocator* allocator) { delete reinterpret_cast<char*>(allocator); }
  static OrtStatus* AllocatorAlloc(OrtAllocator*, size_t size, void** out) {
    constexpr size_t kMost = size_t{1} << 30;
    if (size > kMost) return status("no memory for that much");
    *out = ::operator new(size, std::align_val_t{64});
    return nullptr;
  }
  static OrtStatus* AllocatorGetInfo(const OrtAllocator*, const OrtMemoryInfo** out) {
    *out = nullptr;
    return nullptr;
  }
  static OrtStatus* KernelContext_GetScratchBuffer(const OrtKernelContext*, const OrtMemoryInfo*, size_t, void**) {
    return status("there is no stream here");
  }
  static OrtStatus* AllocatorFree(OrtAllocator*, void* p) {
    ::operator delete(p, std::align_val_t{64});
    return nullptr;
  }
  static OrtStatus* KernelContext_ParallelFor(const OrtKernelContext* context, void (*fn)(void*, size_t), size_t total,
                                              size_t, void* user_data) {
    for (size_t i = 0; i < total; i++) fn(user_data, context->backwards ? total - 1 - i : i);
    return nullptr;
  }
};

void not_there() { fail("the library calls a function of the runtime that this one has not"); }

const OrtApi* api() {
  static void* slots[400];
  for (void*& slot : slots) slot = reinterpret_cast<void*>(&not_there);
#define F(slot, name, result, parameters) slots[slot] = reinterpret_cast<void*>(&Functions::name);
  OC_ORT_FUNCTIONS(F)
#undef F
  return reinterpret_cast<const OrtApi*>(slots);
}

const OrtApiBase kBase = {[](uint32_t) { return api(); }, [] { return "0"; }};

}  // namespace

const std::map<std::string, const OrtCustomOp*>& operators() {
  if (registered().empty() && RegisterCustomOps(nullptr, &kBase)) fail("the library did not register");
  return registered();
}

bool legal(Node& node, const OrtCustomOp& op) {
  const size_t ports = op.GetInputTypeCount(&op), results = op.GetOutputTypeCount(&op);
  const bool variadic = op.GetInputCharacteristic(&op, ports - 1) == kVariadic;
  if (!variadic && node.inputs.size() > ports) node.inputs.resize(ports);
  node.outputs.resize(results, node.outputs.empty());
  bool any = false;
  for (size_t i = 0; i < results; i++) {
    if (op.GetOutputCharacteristic(&op, i) == kRequired) node.outputs[i] = true;
    any = any || node.outputs[i];
  }
  for (size_t i = 0; i < node.inputs.size(); i++) {
    const ElementType type = op.GetInputType(&op, std::min(i, ports - 1));
    Input& input = node.inputs[i];
    if (input.given == Given::kAbsent) continue;
    if (type != ElementType::kUndefined) input.type = type;
    if (input.type == ElementType::kUndefined) input.type = ElementType::kUint8;
    if (!input.reshape(input.shape)) return false;
    if (input.type == kString && input.given == Given::kConstant) return false;
  }
  size_t required = 0;  // inputs may be left out at the end only as far as they are optional
  for (size_t i = 0; i < ports; i++)
    if (op.GetInputCharacteristic(&op, i) == kRequired) required = i + 1;
  while (!node.trailing && !node.inputs.empty() && node.inputs.back().given == Given::kAbsent) node.inputs.pop_back();
  while (node.inputs.size() < required) node.inputs.emplace_back();
  return any;
}

struct Session::Held {
  Node node;
  OrtKernelInfo info;
};

Session::Session(const OrtCustomOp& op, const Node& node) : op_(op), held_(new Held{node, {}}) {
  held_->info.node = &held_->node, held_->info.count = node.inputs.size();
  for (const Input& input : node.inputs)
    held_->info.inputs.push_back(input.given == Given::kConstant ? value_of(input) : nullptr);
  std::unique_ptr<OrtStatus> error(op.CreateKernelV2(&op, api(), &held_->info, &kernel_));
  if (error) kernel_ = nullptr;
}

Session::~Session() {
  if (kernel_) op_.KernelDestroy(kernel_);
  delete held_;
}

Outcome Session::run(const Node& node, uint8_t fill, bool backwards, Results* results) {
  OrtKernelContext context{&held_->info, &op_, &node, {}, {}, 0, fill, backwards};
  for (const Input& input : node.inputs)
    context.inputs.push_back(input.given == Given::kComputed ? value_of(input) : nullptr);
  for (size_t i = 0; i < node.outputs.size(); i++)
    if (node.outputs[i] || node.trailing) context.output_count = i + 1;
  context.outputs.resize(context.output_count);
  std::unique_ptr<OrtStatus> error(op_.KernelComputeV2(kernel_, &context));
  for (const auto* inputs : {&context.inputs, &held_->info.inputs})
    for (const auto& value : *inputs)
      if (value && value->bytes && std::memcmp(value->data.get(), value->copy.data(), value->bytes))
        fail("the library wrote to an input");
  if (error) return context.no_memory ? Outcome::kNoMemory : Outcome::kRefused;
  results->clear();
  for (size_t i = 0; i < context.output_count; i++) {
    const auto& value = context.outputs[i];
    if (node.outputs[i] && !value) fail("an output that was asked for is missing");
    results->emplace_back();
    if (value && value->bytes) results->back().assign(value->data.get(), value->data.get() + value->bytes);
  }
  return Outcome::kDone;
}

}  // namespace oc::fuzz
