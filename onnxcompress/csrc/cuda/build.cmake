# The operators on CUDA devices: -Dcuda=AUTO (where nvcc is found) | ON | OFF | EMULATED.
#
# EMULATED is for tests on machines without a GPU: the same sources are compiled by the C++ compiler, and the operators
# are registered for the CPU's provider, in the place of its own.
set(cuda "AUTO" CACHE STRING "Kernels for CUDA devices: AUTO, ON, OFF or EMULATED")
set_property(CACHE cuda PROPERTY STRINGS AUTO ON OFF EMULATED)
set(cuda_architectures "80-real;89-real;90" CACHE STRING "Devices to compile for; the last one's PTX serves later ones")

set(cuda_kind "${cuda}")
if(cuda_kind STREQUAL "AUTO" OR cuda_kind STREQUAL "ON")
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE) # nvcc may have come since this folder was configured
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS "12.0")
      set(cuda_lacks "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 12.0")
    endif()
  else()
    set(cuda_lacks "no nvcc was found that works with this C++ compiler; PATH or CUDACXX tells where it is")
  endif()
  if(cuda_lacks AND cuda_kind STREQUAL "ON")
    message(FATAL_ERROR "onnxcompress: -Dcuda=ON: ${cuda_lacks}")
  elseif(cuda_lacks)
    set(cuda_kind OFF)
    message(STATUS "onnxcompress: building the kernels of the CPU only: ${cuda_lacks}")
  endif()
elseif(NOT cuda_kind STREQUAL "OFF" AND NOT cuda_kind STREQUAL "EMULATED")
  message(FATAL_ERROR "onnxcompress: -Dcuda=${cuda}: AUTO, ON, OFF or EMULATED")
endif()
if(cuda_kind STREQUAL "OFF")
  return()
endif()

file(GLOB cuda_kernels CONFIGURE_DEPENDS cuda/*.cu)
file(GLOB cuda_hosts CONFIGURE_DEPENDS cuda/*.cpp ops/cuda/*.cpp)
target_sources(onnxcompress PRIVATE ${cuda_kernels} ${cuda_hosts})
target_compile_definitions(onnxcompress PRIVATE OC_CUDA)

if(cuda_kind STREQUAL "EMULATED")
  set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
      "-xc++;-Wno-unknown-pragmas;-Wno-unused-function")
  target_compile_definitions(onnxcompress PRIVATE OC_CUDA_EMULATED)
  return()
endif()

if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake knows the flags of nvcc 12 and later from 3.25.2 on only
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
# The runtime is linked statically: the library then loads where there is no driver, and needs no package of CUDA's.
set_target_properties(onnxcompress PROPERTIES CUDA_ARCHITECTURES "${cuda_architectures}" CUDA_RUNTIME_LIBRARY Static
    CUDA_STANDARD 20 CUDA_VISIBILITY_PRESET hidden)
message(STATUS "onnxcompress: building the kernels for CUDA with ${CMAKE_CUDA_COMPILER}")
