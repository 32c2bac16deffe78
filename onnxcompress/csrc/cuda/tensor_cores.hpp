// Tensor-core instructions and the loads that feed them; each is one warp's, all 32 lanes together.
//
// Registers as the PTX ISA lays them out ("Matrix fragments for mma.m16n8k32", "... for sparse mma.m16n8k64", ...).
// With g = lane / 4 and t = lane % 4, for bytes:
//   a[0], a[1], a[2], a[3]: row g | g + 8 | g | g + 8, columns 4t .. 4t + 3 | the same | 16 + 4t .. | the same
//   b[i]: rows (along K) 16i + 4t .. 16i + 4t + 3, column g
//   d[0], d[1], d[2], d[3]: row g | g | g + 8 | g + 8, column 2t | 2t + 1 | 2t | 2t + 1
// and for halves, two in a register, the same with 2t in place of 4t and 8 in place of 16.
#pragma once

#include "cuda/device.hpp"

namespace oc::cuda {

#ifdef __CUDACC__

#define OC_MMA(name, D, constraint, instruction)                                                        \
  __device__ __forceinline__ void name(D(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) {        \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"       \
                 : "+" constraint(d[0]), "+" constraint(d[1]), "+" constraint(d[2]), "+" constraint(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                   \
  }

OC_MMA(mma_u8s8, int, "r", "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32")    // d += u8 a[16, 32] * s8 b[32, 8]
OC_MMA(mma_s8u8, int, "r", "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32")    // d += s8 a[16, 32] * u8 b[32, 8]
OC_MMA(mma_f16, float, "f", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")  // d += f16 a[16, 16] * f16 b[16, 8]
#undef OC_MMA

#if __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1205
#define OC_MMA_SPARSE "mma.sp::ordered_metadata"
#else
#define OC_MMA_SPARSE "mma.sp"  // which takes metadata in any order; older compilers know no other word
#endif

// d += s8 a[16, 64] * u8 b[64, 8], where of every 4 columns of a row of a two are stored: a holds the 32 stored columns
// as mma_s8u8 lays them out. Metadata: 2 bits for each of 16 stored values, its column within its 4, rising; lane
// 4g + t holds row g + 8 (t % 2), columns 32 (t / 2) .. of a.
__device__ __forceinline__ void mma_sparse_s8u8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4],
                                                uint32_t metadata) {
  asm volatile(
      OC_MMA_SPARSE ".sync.aligned.m16n8k64.row.col.s32.s8.u8.s32"
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, 0x0;\n"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(metadata));
}
#undef OC_MMA_SPARSE

// ldmatrix: four matrices of 8 rows of 16 bytes from shared memory. Lane i gives the address of row i % 8 of matrix
// i / 8, aligned to 16 bytes; r[m] becomes bytes 4t .. 4t + 3 of row g of matrix m.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* shared_row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

// The same with every matrix of 8 x 8 halves transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* shared_row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

#else

namespace emulation {

// What one lane brings to a multiplication.
template <class D>
struct Fragments {
  D* d;
  const uint32_t* a;
  const uint32_t* b;
  uint32_t metadata;
};

template <class D>
const Fragments<D>& of_lane(void* const* operands, int g, int t) {
  return *static_cast<const Fragments<D>*>(operands[4 * g + t]);
}

inline float element(const uint32_t* registers, int index, half*) {
  return __half2float({static_cast<uint16_t>(registers[index / 2] >> 16 * (index % 2))});
}
inline int element(const uint32_t* registers, int index, int8_t*) {
  return static_cast<int8_t>(registers[index / 4] >> 8 * (index % 4));
}
inline int element(const uint32_t* registers, int index, uint8_t*) {
  return static_cast<uint8_t>(registers[index / 4] >> 8 * (index % 4));
}

constexpr int kRows = 16, kColumns = 8;

// Stored element [row, column] of a, in four registers.
template <class A, class D>
auto element_of_a(void* const* operands, int row, int column) {
  constexpr int kInRegister = 4 / sizeof(A), kHalf = 4 * kInRegister;
  const int reg = row / 8 + 2 * (column / kHalf);
  const auto& fragment = of_lane<D>(operands, row % 8, column % kHalf / kInRegister);
  return element(fragment.a, reg * kInRegister + column % kInRegister, static_cast<A*>(nullptr));
}

template <class B, class D>
auto element_of_b(void* const* operands, int row, int column) {
  constexpr int kInRegister = 4 / sizeof(B), kHalf = 4 * kInRegister;
  const auto& fragment = of_lane<D>(operands, column, row % kHalf / kInRegister);
  return element(fragment.b, row / kHalf * kInRegister + row % kInRegister, static_cast<B*>(nullptr));
}

template <class D>
D& element_of_d(void* const* operands, int row, int column) {
  return of_lane<D>(operands, row % 8, column / 2).d[row / 8 * 2 + column % 2];
}

inline void require_whole_warp(unsigned mask) {
  if (mask != 0xffffffffu) throw Error("a tensor-core instruction without all lanes of the warp");
}

template <class A, class B, class D>
void multiply(void* const* operands, unsigned mask) {
  require_whole_warp(mask);
  constexpr int kDepth = 32 / sizeof(A);
  D a[kRows][kDepth], b[kDepth][kColumns];
  for (int k = 0; k < kDepth; ++k) {
    for (int i = 0; i < kRows; ++i) a[i][k] = element_of_a<A, D>(operands, i, k);
    for (int j = 0; j < kColumns; ++j) b[k][j] = element_of_b<B, D>(operands, k, j);
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      D sum = element_of_d<D>(operands, i, j);
      for (int k = 0; k < kDepth; ++k) sum += a[i][k] * b[k][j];
      element_of_d<D>(operands, i, j) = sum;
    }
  }
}

inline void multiply_sparse(void* const* operands, unsigned mask) {
  require_whole_warp(mask);
  constexpr int kStored = 32;
  int b[2 * kStored][kColumns];
  for (int k = 0; k < 2 * kStored; ++k) {
    for (int j = 0; j < kColumns; ++j) b[k][j] = element_of_b<uint8_t, int>(operands, k, j);
  }
  for (int i = 0; i < kRows; ++i) {
    for (int stored = 0; stored < kStored; ++stored) {
      const uint32_t metadata = of_lane<int>(operands, i % 8, i / 8 + stored / 16 * 2).metadata;
      const unsigned group = metadata >> 4 * (stored % 16 / 2) & 15;
      if ((group & 3) >= group >> 2) throw Error("sparse metadata whose two columns do not rise");
      const int k = stored / 2 * 4 + static_cast<int>(stored % 2 ? group >> 2 : group & 3);
      const int a = element_of_a<int8_t, int>(operands, i, stored);
      for (int j = 0; j < kColumns; ++j) element_of_d<int>(operands, i, j) += a * b[k][j];
    }
  }
}

// Operation `function` on this lane's fragments.
template <class D>
void multiply_with(WarpOperation function, D* d, const uint32_t* a, const uint32_t* b, uint32_t metadata = 0) {
  Fragments<D> mine{d, a, b, metadata};
  warp_operation(0xffffffffu, function, &mine);
}

struct MatrixRow {
  uint32_t* r;
  const unsigned char* row;
};

template <bool kTransposed>
void load_rows(void* const* operands, unsigned mask) {
  require_whole_warp(mask);
  for (int lane = 0; lane < warpSize; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int byte = 0; byte < 4; ++byte) {
        const int g = lane / 4, t = lane % 4, pair = 2 * t + byte / 2;
        const int row = kTransposed ? pair : g, column = kTransposed ? 2 * g + byte % 2 : 4 * t + byte;
        const uint32_t value = static_cast<MatrixRow*>(operands[8 * m + row])->row[column];
        uint32_t& r = static_cast<MatrixRow*>(operands[lane])->r[m];
        r = (r & ~(255u << 8 * byte)) | value << 8 * byte;
      }
    }
  }
}

inline void load_with(WarpOperation function, uint32_t* r, const void* row) {
  require_aligned(row);
  MatrixRow mine{r, static_cast<const unsigned char*>(row)};
  for (int m = 0; m < 4; ++m) r[m] = 0;
  warp_operation(0xffffffffu, function, &mine);
}

}  // namespace emulation

inline void mma_u8s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulation::multiply_with<int>(emulation::multiply<uint8_t, int8_t, int>, d, a, b);
}
inline void mma_s8u8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulation::multiply_with<int>(emulation::multiply<int8_t, uint8_t, int>, d, a, b);
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulation::multiply_with<float>(emulation::multiply<half, half, float>, d, a, b);
}
inline void mma_sparse_s8u8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata) {
  emulation::multiply_with<int>(emulation::multiply_sparse, d, a, b, metadata);
}
inline void load_matrices(uint32_t (&r)[4], const void* shared_row) {
  emulation::load_with(emulation::load_rows<false>, r, shared_row);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void* shared_row) {
  emulation::load_with(emulation::load_rows<true>, r, shared_row);
}

#endif

}  // namespace oc::cuda
