// Which instruction set the kernels use: the best that the processor has, or the one that a test forces.
#pragma once

namespace oc {

enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vbmi };

const char* name(Isa isa);
Isa active_isa();
bool force_isa(const char* wanted);
bool has_isa(const char* wanted);

}  // namespace oc

// Which instruction sets were built: CMake defines OC_BUILT_... for each.
#if defined(OC_BUILT_avx2)
#define OC_IF_AVX2(...) __VA_ARGS__
#else
#define OC_IF_AVX2(...)
#endif
#if defined(OC_BUILT_avx512)
#define OC_IF_AVX512(...) __VA_ARGS__
#else
#define OC_IF_AVX512(...)
#endif
#if defined(OC_BUILT_avx512vbmi)
#define OC_IF_AVX512VBMI(...) __VA_ARGS__
#else
#define OC_IF_AVX512VBMI(...)
#endif

// Declares the kernels `Type name` of every instruction set, and oc::name() that gives the active one's.
#define OC_DECLARE_KERNELS(Type, name)                                   \
  namespace oc {                                                         \
  namespace scalar { extern const Type name; }                           \
  OC_IF_AVX2(namespace avx2 { extern const Type name; })                 \
  OC_IF_AVX512(namespace avx512 { extern const Type name; })             \
  OC_IF_AVX512VBMI(namespace avx512vbmi { extern const Type name; })     \
  inline const Type& name() {                                            \
    switch (active_isa()) {                                              \
      OC_IF_AVX512VBMI(case Isa::kAvx512Vbmi: return avx512vbmi::name;)  \
      OC_IF_AVX512(case Isa::kAvx512: return avx512::name;)              \
      OC_IF_AVX2(case Isa::kAvx2: return avx2::name;)                    \
      default: return scalar::name;                                      \
    }                                                                    \
  }                                                                      \
  }
