#include "cpu/isa.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace oc {

namespace {

constexpr Isa kAll[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vbmi};

bool built(Isa isa) {
  switch (isa) {
    OC_IF_AVX512VBMI(case Isa::kAvx512Vbmi: return true;)
    OC_IF_AVX512(case Isa::kAvx512: return true;)
    OC_IF_AVX2(case Isa::kAvx2: return true;)
    default: return isa == Isa::kScalar;
  }
}

bool has(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni");
  const bool vbmi = avx512 && __builtin_cpu_supports("avx512vbmi");
  const bool supported[] = {true, avx2, avx512, vbmi};
  return built(isa) && supported[static_cast<int>(isa)];
#else
  return isa == Isa::kScalar;
#endif
}

Isa best() {
  Isa found = Isa::kScalar;
  for (Isa isa : kAll)
    if (has(isa)) found = isa;
  return found;
}

// The one of this name, if it can be used here.
const Isa* find(const char* wanted) {
  for (const Isa& isa : kAll)
    if (!std::strcmp(name(isa), wanted) && has(isa)) return &isa;
  return nullptr;
}

// ONNXCOMPRESS_ISA narrows the choice for a whole process.
Isa initial() {
  const char* wanted = std::getenv("ONNXCOMPRESS_ISA");
  const Isa* isa = wanted ? find(wanted) : nullptr;
  return isa ? *isa : best();
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa{initial()};
  return isa;
}

}  // namespace

const char* name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Vbmi: return "avx512vbmi";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    default: return "scalar";
  }
}

Isa active_isa() { return active(); }

bool force_isa(const char* wanted) {
  if (!*wanted) {
    active() = best();
    return true;
  }
  const Isa* isa = find(wanted);
  if (isa) active() = *isa;
  return isa != nullptr;
}

bool has_isa(const char* wanted) { return find(wanted) != nullptr; }

}  // namespace oc
