// The part of ONNX Runtime's C ABI that the library uses, declared here so that no header of it is needed to build.
//
// OrtApi is an array of function pointers that only ever grows at its end, and OrtCustomOp a structure that does;
// slots and offsets are those of API version 21, which every runtime from 1.21 on has. tests/ops/test_abi.py holds
// this file to a table of them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace oc::ort {

constexpr uint32_t kApiVersion = 21;

struct OrtApi;
struct OrtStatus;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;
struct OrtAllocator;
struct OrtMemoryInfo;
struct OrtCustomOp;

enum OrtErrorCode : int { kOk = 0, kFail = 1, kInvalidArgument = 2, kInvalidGraph = 10 };

// The numbers of onnx.TensorProto.DataType.
enum class ElementType : int {
  kUndefined = 0, kFloat = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kInt64 = 7, kBool = 9, kFloat16 = 10
};

enum Characteristic : int { kRequired = 0, kOptional = 1, kVariadic = 2 };
enum MemoryType : int { kHostInput = -2, kDefaultMemory = 0 };

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// F(slot, name, result, parameters)
#define OC_ORT_FUNCTIONS(F)                                                                                        \
  F(0, CreateStatus, OrtStatus*, (OrtErrorCode code, const char* message))                                         \
  F(2, GetErrorMessage, const char*, (const OrtStatus* status))                                                    \
  F(26, CreateCustomOpDomain, OrtStatus*, (const char* domain, OrtCustomOpDomain** out))                           \
  F(27, CustomOpDomain_Add, OrtStatus*, (OrtCustomOpDomain * domain, const OrtCustomOp* op))                       \
  F(28, AddCustomOpDomain, OrtStatus*, (OrtSessionOptions * options, OrtCustomOpDomain* domain))                   \
  F(51, GetTensorMutableData, OrtStatus*, (OrtValue * value, void** out))                                          \
  F(60, GetTensorElementType, OrtStatus*, (const OrtTensorTypeAndShapeInfo* info, ElementType* out))               \
  F(61, GetDimensionsCount, OrtStatus*, (const OrtTensorTypeAndShapeInfo* info, size_t* out))                      \
  F(62, GetDimensions, OrtStatus*, (const OrtTensorTypeAndShapeInfo* info, int64_t* values, size_t length))        \
  F(65, GetTensorTypeAndShape, OrtStatus*, (const OrtValue* value, OrtTensorTypeAndShapeInfo** out))               \
  F(75, AllocatorAlloc, OrtStatus*, (OrtAllocator * allocator, size_t size, void** out))                           \
  F(76, AllocatorFree, OrtStatus*, (OrtAllocator * allocator, void* p))                                            \
  F(77, AllocatorGetInfo, OrtStatus*, (const OrtAllocator* allocator, const OrtMemoryInfo** out))                  \
  F(85, KernelInfoGetAttribute_float, OrtStatus*, (const OrtKernelInfo* info, const char* name, float* out))       \
  F(86, KernelInfoGetAttribute_int64, OrtStatus*, (const OrtKernelInfo* info, const char* name, int64_t* out))     \
  F(87, KernelInfoGetAttribute_string, OrtStatus*,                                                                 \
    (const OrtKernelInfo* info, const char* name, char* out, size_t* size))                                        \
  F(88, KernelContext_GetInputCount, OrtStatus*, (const OrtKernelContext* context, size_t* out))                   \
  F(89, KernelContext_GetOutputCount, OrtStatus*, (const OrtKernelContext* context, size_t* out))                  \
  F(90, KernelContext_GetInput, OrtStatus*, (const OrtKernelContext* context, size_t index, const OrtValue** out)) \
  F(91, KernelContext_GetOutput, OrtStatus*,                                                                       \
    (OrtKernelContext * context, size_t index, const int64_t* dims, size_t count, OrtValue** out))                 \
  F(93, ReleaseStatus, void, (OrtStatus * status))                                                                 \
  F(99, ReleaseTensorTypeAndShapeInfo, void, (OrtTensorTypeAndShapeInfo * info))                                   \
  F(132, ReleaseAllocator, void, (OrtAllocator * allocator))                                                       \
  F(163, KernelInfoGetAttributeArray_int64, OrtStatus*,                                                            \
    (const OrtKernelInfo* info, const char* name, int64_t* out, size_t* size))                                     \
  F(193, KernelContext_GetGPUComputeStream, OrtStatus*, (const OrtKernelContext* context, void** out))             \
  F(230, KernelInfo_GetInputCount, OrtStatus*, (const OrtKernelInfo* info, size_t* out))                           \
  F(249, KernelInfoGetConstantInput_tensor, OrtStatus*,                                                            \
    (const OrtKernelInfo* info, size_t index, int* is_constant, const OrtValue** out))                             \
  F(274, KernelContext_ParallelFor, OrtStatus*,                                                                    \
    (const OrtKernelContext* context, void (*fn)(void*, size_t), size_t total, size_t num_batch, void* user_data)) \
  F(277, KernelContext_GetScratchBuffer, OrtStatus*,                                                               \
    (const OrtKernelContext* context, const OrtMemoryInfo* info, size_t bytes, void** out))                        \
  F(278, KernelInfoGetAllocator, OrtStatus*, (const OrtKernelInfo* info, MemoryType type, OrtAllocator** out))

// The functions above by name, read from the runtime's table once.
struct Api {
#define F(slot, name, result, parameters) result(*name) parameters;
  OC_ORT_FUNCTIONS(F)
#undef F

  explicit Api(const OrtApi* table) {
    const auto* slots = reinterpret_cast<void* const*>(table);
#define F(slot, name, result, parameters) name = reinterpret_cast<result(*) parameters>(slots[slot]);
    OC_ORT_FUNCTIONS(F)
#undef F
  }
};

// What a custom operator offers; the runtime reads it through these pointers.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  ElementType (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  ElementType (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);
  Characteristic (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  MemoryType (*GetInputMemoryType)(const OrtCustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int** input_index, int** output_index);
  void (*ReleaseMayInplace)(int* input_index, int* output_index);
  size_t (*GetAliasMap)(int** input_index, int** output_index);
  void (*ReleaseAliasMap)(int* input_index, int* output_index);
};

}  // namespace oc::ort
