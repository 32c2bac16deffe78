// What lets Python call kernels built for the emulator: functions that return their exception's message, or null.
#pragma once

#include <exception>
#include <string>

#include "cuda/device.hpp"

namespace oc::cuda::tests {

template <auto kFunction>
struct Guarded;

template <class... Arguments, void (*kFunction)(Arguments...)>
struct Guarded<kFunction> {
  static const char* call(Arguments... arguments) {
    static std::string message;
    try {
      kFunction(arguments...);
    } catch (const std::exception& error) {
      message = error.what();
      return message.c_str();
    }
    return nullptr;
  }
};

}  // namespace oc::cuda::tests

// Exports a function that returns nothing, of any namespace and of scalars, pointers and references, as `name`.
#define OC_EXPORT(name, function) \
  extern "C" const decltype(&::oc::cuda::tests::Guarded<function>::call) oc_function_##name; \
  const decltype(&::oc::cuda::tests::Guarded<function>::call) oc_function_##name =         \
      &::oc::cuda::tests::Guarded<function>::call;

// Lets Emulated.structure hold a ctypes.Structure of this name to the size of the C++ one.
#define OC_EXPORT_SIZE(type) \
  extern "C" const size_t oc_size_##type; \
  const size_t oc_size_##type = sizeof(::oc::cuda::type);

extern "C" inline void oc_set_reversed(bool reversed);
extern "C" __attribute__((used)) inline void oc_set_reversed(bool reversed) {
  ::oc::cuda::emulation::reversed = reversed;
}
