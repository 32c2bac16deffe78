// The entry points of the library: registration with ONNX Runtime, and what Python asks of it.
#include <algorithm>
#include <chrono>
#include <deque>
#include <new>

#include "cpu/isa.hpp"
#include "cpu/peak.hpp"
#ifdef OC_CUDA
#include "cuda/runtime.hpp"
#include "ops/cuda/registry.hpp"
#ifdef OC_CUDA_EMULATED
#include "cuda/emulation.hpp"
#endif
#endif
#include "ops/registry.hpp"
#include "ort/op.hpp"

#define OC_EXPORT extern "C" __attribute__((visibility("default")))

namespace oc {

namespace {

const ort::Api* api = nullptr;

ort::OrtStatus* failure(const char* message) { return api->CreateStatus(ort::kInvalidArgument, message); }

// One operator as the runtime sees it: its table of functions, followed by what they need.
struct CustomOp : ort::OrtCustomOp {
  const OpDefinition* definition;

  static const OpDefinition& of(const ort::OrtCustomOp* op) { return *static_cast<const CustomOp*>(op)->definition; }

  explicit CustomOp(const OpDefinition& d) : ort::OrtCustomOp{}, definition(&d) {
    version = ort::kApiVersion;
    GetName = [](const ort::OrtCustomOp* op) { return of(op).name; };
    GetExecutionProviderType = [](const ort::OrtCustomOp* op) { return of(op).provider.name; };
    GetInputType = [](const ort::OrtCustomOp* op, size_t i) { return of(op).inputs[i].type; };
    GetInputTypeCount = [](const ort::OrtCustomOp* op) { return of(op).inputs.size(); };
    GetOutputType = [](const ort::OrtCustomOp* op, size_t i) { return of(op).outputs[i].type; };
    GetOutputTypeCount = [](const ort::OrtCustomOp* op) { return of(op).outputs.size(); };
    GetInputCharacteristic = [](const ort::OrtCustomOp* op, size_t i) { return of(op).inputs[i].characteristic; };
    GetOutputCharacteristic = [](const ort::OrtCustomOp* op, size_t i) { return of(op).outputs[i].characteristic; };
    GetInputMemoryType = [](const ort::OrtCustomOp* op, size_t i) {
      const auto& host = of(op).host_inputs;
      return std::find(host.begin(), host.end(), i) == host.end() ? ort::kDefaultMemory : ort::kHostInput;
    };
    GetVariadicInputMinArity = [](const ort::OrtCustomOp*) { return 1; };
    GetVariadicInputHomogeneity = [](const ort::OrtCustomOp*) { return 1; };
    GetVariadicOutputMinArity = [](const ort::OrtCustomOp*) { return 1; };
    GetVariadicOutputHomogeneity = [](const ort::OrtCustomOp*) { return 1; };
    CreateKernelV2 = create;
    KernelComputeV2 = d.provider.from_device ? compute<true> : compute<false>;
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    GetStartVersion = [](const ort::OrtCustomOp*) { return 1; };
    GetEndVersion = [](const ort::OrtCustomOp*) { return 1; };
  }

  static ort::OrtStatus* create(const ort::OrtCustomOp* op, const ort::OrtApi*, const ort::OrtKernelInfo* info,
                                void** kernel) {
    try {
      *kernel = of(op).create(Info(*api, info, of(op).provider.from_device)).release();
      return nullptr;
    } catch (const std::exception& error) {
      return failure((std::string(of(op).name) + ": " + error.what()).c_str());
    }
  }

  template <bool kOnDevice>
  static ort::OrtStatus* compute(void* kernel, ort::OrtKernelContext* context) {
    try {
      Context c(*api, context, kOnDevice);
      static_cast<Kernel*>(kernel)->compute(c);
      c.check_outputs();
      return nullptr;
    } catch (const std::exception& error) {
      return failure(error.what());
    }
  }
};

// All operators, for all providers.
std::vector<OpDefinition> definitions() {
#ifdef OC_CUDA_EMULATED
  return device_registry();  // they stand in for the CPU's
#else
  std::vector<OpDefinition> all = registry();
#ifdef OC_CUDA
  all.insert(all.end(), device_registry().begin(), device_registry().end());
#endif
  return all;
#endif
}

}  // namespace
}  // namespace oc

// Called by ONNX Runtime for every session options the library is registered with.
OC_EXPORT oc::ort::OrtStatus* RegisterCustomOps(oc::ort::OrtSessionOptions* options, const oc::ort::OrtApiBase* base) {
  using namespace oc;
  const ort::OrtApi* table = base->GetApi(ort::kApiVersion);
  if (!table) return nullptr;  // the runtime is older than 1.21 and has said so itself
  // Both live as long as the process: sessions hold pointers to them.
  static const ort::Api the_api(table);
  api = &the_api;
  static ort::OrtCustomOpDomain* domain = nullptr;
  if (!domain) {
    static const std::vector<OpDefinition> all = definitions();
    static std::deque<CustomOp> ops;
    ort::OrtCustomOpDomain* made = nullptr;
    if (auto* status = api->CreateCustomOpDomain("onnxcompress", &made)) return status;
    for (const OpDefinition& definition : all) {
      ops.emplace_back(definition);
      if (auto* status = api->CustomOpDomain_Add(made, &ops.back())) return status;
    }
    domain = made;
  }
  return api->AddCustomOpDomain(options, domain);
}

// The instruction set that kernels made from now on use: a static string.
OC_EXPORT const char* onnxcompress_instruction_set() { return oc::name(oc::active_isa()); }

// Force one; "" goes back to the best that the processor has. False where the processor lacks it.
OC_EXPORT bool onnxcompress_force_instruction_set(const char* wanted) { return oc::force_isa(wanted); }

// Whether there are kernels for an instruction set, and the processor has it.
OC_EXPORT bool onnxcompress_has_instruction_set(const char* wanted) { return oc::has_isa(wanted); }

// What the library was built with for CUDA: -1 no kernels; else how many devices there are now.
OC_EXPORT int onnxcompress_cuda_devices() {
#ifdef OC_CUDA
  return oc::cuda::device_count();
#else
  return -1;
#endif
}

#ifdef OC_CUDA_EMULATED
// Run the threads of a block backwards, as a device may: for tests.
OC_EXPORT void onnxcompress_emulate_backwards(bool backwards) { oc::cuda::emulation::reversed = backwards; }
#endif

// The most int8 operations (two a multiply-accumulate) that one core does in a second, in 10^9: the best of a few runs.
OC_EXPORT double onnxcompress_peak() {
  constexpr long kRounds = 1 << 20;
  double best = 0;
  for (int i = 0; i < 20; i++) {
    const auto start = std::chrono::steady_clock::now();
    const int macs = oc::peak().dots(kRounds);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2e-9 * macs * kRounds / elapsed.count());
  }
  return best;
}
