// Attention in one pass over the keys: a block has 64 queries of a head, a warp 16 of them, and tiles of keys and
// values go by in shared memory while each query's greatest score, mass and sum of values are kept in registers
// ("Online normalizer calculation for softmax", Milakov and Gimelshein 2018; "FlashAttention-2", Dao 2023). Scores
// leave no register.
#include "cuda/attention.hpp"

#include <algorithm>

#include "cuda/epilogue.hpp"
#include "cuda/together.hpp"

namespace oc::cuda {

namespace {

constexpr int kWarp = 32, kWarps = 4, kThreads = kWarps * kWarp, kQueriesOfWarp = 16, kQueries = 64;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr uint32_t kSigns = 0x80808080u;  // xor of them makes s8 of bytes with zero point 128
constexpr float kLog2E = 1.44269504f, kMostBias = 1e30f;

// 1.5 * 2^23: a float whose last place is 1, so that integers of up to 23 bits are its mantissa.
constexpr int kMagicBits = 0x4b400000;
constexpr float kMagic = 12582912.f;

// Probabilities are 2^(score - base). The base follows the greatest score: it is kDistance below when set, and set anew
// when the score is more than kReach above, short of what halves hold. Rounding of a base beyond 2^24 moves it by less
// than the difference of the two.
constexpr float kDistance = 7, kReach = 15;

// A tile of keys and values as bytes. Rows are 16 bytes apart from a multiple of 32, so that 8 of them, read 16 bytes
// each at the same column, lie in all 32 banks.
template <int kSize>
struct Tile {
  static constexpr int kKeys = kSize > 96 ? 32 : 64;
  alignas(16) uint8_t keys[kKeys][kSize + 16];
  alignas(16) uint8_t values[kKeys][kSize + 16];
  alignas(16) float bias[kKeys];  // of scores: the mask's, where it does not depend on the query; -inf beyond the keys
};

// Where the head that a block computes begins.
struct Head {
  const uint8_t *q, *k, *v;
  int64_t pitch;  // of their rows
  int64_t mask;   // index of its first element of the mask
  float scale;
};

__device__ __forceinline__ float exp2_fast(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// What a value of a mask that is added does to an exponent of 2; not-a-number is as -inf.
__device__ __forceinline__ float added_bias(float value) {
  return fminf(fmaxf(value, -kMostBias), kMostBias) * kLog2E;
}

// The same of element `at` of a mask of keys.
__device__ __forceinline__ float key_bias(const AttentionMask& mask, int64_t at) {
  bool keeps = true;
  switch (mask.type) {
    case AttentionMaskType::kInt64:
      keeps = static_cast<const int64_t*>(mask.values)[at] != 0;
      break;
    case AttentionMaskType::kInt32:
      keeps = static_cast<const int32_t*>(mask.values)[at] != 0;
      break;
    case AttentionMaskType::kFloat: {
      const float value = static_cast<const float*>(mask.values)[at];
      if (mask.adds) return added_bias(value);
      keeps = value != 0;
      break;
    }
    case AttentionMaskType::kBool:
      keeps = static_cast<const uint8_t*>(mask.values)[at] != 0;
      break;
    default:
      break;
  }
  return keeps ? 0.f : -kMostBias;
}

// 16 bytes of a row of which `count` are the head's; zeros follow. All addresses are multiples of `alignment`.
__device__ __forceinline__ void copy_part(uint8_t* shared, const uint8_t* from, int count, int alignment) {
  if (alignment == 16) return copy_async16(shared, from, count > 0);
  if (alignment == 4) {
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
      *reinterpret_cast<uint32_t*>(shared + i) = i < count ? *reinterpret_cast<const uint32_t*>(from + i) : 0u;
    }
    return;
  }
  for (int i = 0; i < 16; ++i) shared[i] = i < count ? from[i] : uint8_t{0};
}

__device__ __forceinline__ int alignment_of(int size) { return size % 16 == 0 ? 16 : size % 4 == 0 ? 4 : 1; }

template <int kSize>
__device__ __forceinline__ void stage(const Attention& a, const Head& head, int first, Tile<kSize>& tile) {
  constexpr int kParts = kSize / 16, kKeys = Tile<kSize>::kKeys;
  const int thread = static_cast<int>(threadIdx.x), alignment = alignment_of(a.size);
  for (int i = thread; i < kKeys * kParts; i += kThreads) {
    const int row = i / kParts, column = i % kParts * 16;
    const int count = first + row < a.keys ? a.size - column : 0;
    const int64_t at = (first + row) * head.pitch + column;
    copy_part(&tile.keys[row][column], head.k + at, count, alignment);
    copy_part(&tile.values[row][column], head.v + at, count, alignment);
  }
  if (thread < kKeys) {
    const int key = first + thread;
    float bias = key < a.keys ? 0.f : -INFINITY;
    if (key < a.keys && a.mask.query_stride == 0) bias = key_bias(a.mask, head.mask + key);
    tile.bias[thread] = bias;
  }
}

// Four bytes of a query as s8, from a column on; 0 beyond the head.
__device__ __forceinline__ uint32_t load_query(const uint8_t* row, int column, int size) {
  const int count = size - column;
  if (count <= 0) return 0;
  if (size % 4 == 0) return *reinterpret_cast<const uint32_t*>(row + column) ^ kSigns;
  uint32_t bytes = kSigns;
  for (int i = 0; i < min(count, 4); ++i) {
    bytes = (bytes & ~(255u << 8 * i)) | static_cast<uint32_t>(row[column + i]) << 8 * i;
  }
  return bytes ^ kSigns;
}

__device__ __forceinline__ uint32_t bits_of(half2 halves) {
  return static_cast<uint32_t>(__half_as_ushort(__high2half(halves))) << 16 |
         __half_as_ushort(__low2half(halves));
}

__device__ __forceinline__ half2 halves_of(uint32_t bits) {
  return __halves2half2(__ushort_as_half(static_cast<unsigned short>(bits & 0xffff)),
                        __ushort_as_half(static_cast<unsigned short>(bits >> 16)));
}

// Two bytes of a word less 128, as halves: 0x6400 | byte is 1024 + byte.
__device__ __forceinline__ uint32_t centred_halves(uint32_t word, unsigned selector) {
  const uint32_t raised = __byte_perm(word, 0x64646464u, selector);
  return bits_of(__hsub2(halves_of(raised), __float2half2_rn(1024 + 128)));
}

// 16 queries of a warp. In each lane, with g = lane / 4 and t = lane % 4, queries g and g + 8, whose values are in turn
// in pairs of registers: [0], [1] are of query g and [2], [3] of g + 8.
template <int kSize>
struct Queries {
  static constexpr int kKeys = Tile<kSize>::kKeys;

  uint32_t q[kSize / 32][4];  // s8
  int start[4];               // of scores
  // Sums of value times probability. Of the 16 columns that begin at 16 i, sums[2 i] has the even and sums[2 i + 1] the
  // odd ones: a lane has 4t .. 4t + 3.
  float sums[kSize / 8][4];
  float mass[4];  // sums of probabilities
  float base[2];

  // `first`: the warp's. Queries beyond the last are the last again.
  __device__ __forceinline__ void load(const Attention& a, const Head& head, int first, int g, int t) {
    const uint8_t* row = head.q + min(first + g, a.keys - 1) * head.pitch;
    const uint8_t* other = head.q + min(first + g + 8, a.keys - 1) * head.pitch;
    // k is multiplied as u8: that adds 128 * sum(q), which is taken off here.
    const uint32_t zero_points[2] = {kSigns, kSigns};
    int excess[4] = {};
#pragma unroll
    for (int i = 0; i < kSize / 32; ++i) {
      const int column = i * 32 + 4 * t;
      q[i][0] = load_query(row, column, a.size), q[i][1] = load_query(other, column, a.size);
      q[i][2] = load_query(row, column + 16, a.size), q[i][3] = load_query(other, column + 16, a.size);
      mma_s8u8(excess, q[i], zero_points);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) start[i] = kMagicBits - excess[i], mass[i] = 0;
#pragma unroll
    for (auto& four : sums) {
      for (float& sum : four) sum = 0;
    }
    base[0] = base[1] = -INFINITY;
  }

  // Bits of kMagic + q k^T.
  __device__ __forceinline__ void multiply_keys(const Tile<kSize>& tile, int lane, int (&scores)[kKeys / 8][4]) const {
#pragma unroll
    for (auto& four : scores) {
      for (int i = 0; i < 4; ++i) four[i] = start[i];
    }
#pragma unroll
    for (int i = 0; i < kSize / 32; ++i) {
#pragma unroll
      for (int j = 0; j < kKeys / 16; ++j) {
        uint32_t k[4];
        load_matrices(k, &tile.keys[j * 16 + lane / 16 * 8 + lane % 8][i * 32 + lane / 8 % 2 * 16]);
        const uint32_t eight[2] = {k[0], k[1]}, next[2] = {k[2], k[3]};
        mma_s8u8(scores[2 * j], q[i], eight);
        mma_s8u8(scores[2 * j + 1], q[i], next);
      }
    }
  }

  // Scores as exponents of 2, in place of their integers.
  __device__ __forceinline__ void scale_scores(const Attention& a, const Head& head, const Tile<kSize>& tile, int first,
                                               int query, int t, float (&scores)[kKeys / 8][4]) const {
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      const auto bias = *reinterpret_cast<const float2*>(&tile.bias[j * 8 + 2 * t]);
#pragma unroll
      for (int half_of = 0; half_of < 2; ++half_of) {
        float of_query[2] = {bias.x, bias.y};
        if (a.mask.query_stride != 0) {
          const int row = min(query + half_of * 8, a.keys - 1), key = first + j * 8 + 2 * t;
          float values[2];
          load_together(static_cast<const float*>(a.mask.values) + head.mask + row * a.mask.query_stride + key, values,
                        a.keys - key);
          of_query[0] += added_bias(values[0]), of_query[1] += added_bias(values[1]);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[j][half_of * 2 + i];
          score = fmaf(score - kMagic, head.scale, of_query[i]);
        }
      }
    }
  }

  // Moves the bases, and what was summed to them, where a score is too far above.
  __device__ __forceinline__ void follow(const float (&scores)[kKeys / 8][4]) {
    float factor[2];
    bool moved = false;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float most = fmaxf(scores[0][2 * i], scores[0][2 * i + 1]);
#pragma unroll
      for (int j = 1; j < kKeys / 8; ++j) most = fmaxf(most, fmaxf(scores[j][2 * i], scores[j][2 * i + 1]));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
      const float last = base[i];
      if (most - last > kReach) base[i] = most - kDistance, moved = true;
      factor[i] = exp2_fast(last - base[i]);
    }
    if (!__any_sync(kAllLanes, moved)) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      mass[i] *= factor[i / 2];
#pragma unroll
      for (auto& four : sums) four[i] *= factor[i / 2];
    }
  }

  // Adds values by their probabilities. What a lane has of two tiles of 8 scores is its part of the first factor.
  __device__ __forceinline__ void multiply_values(const Tile<kSize>& tile, int lane,
                                                  const float (&scores)[kKeys / 8][4]) {
    constexpr uint32_t kOne = 0x3c003c00u;
    const uint32_t ones[2] = {kOne, kOne};
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      uint32_t p[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&four)[4] = scores[2 * j + i / 2];
        const float of_query = base[i % 2];
        p[i] = bits_of(__floats2half2_rn(exp2_fast(four[i % 2 * 2] - of_query),
                                         exp2_fast(four[i % 2 * 2 + 1] - of_query)));
      }
      mma_f16(mass, p, ones);
#pragma unroll
      for (int i = 0; i < kSize / 32; ++i) {
        // Bytes 0, 1 | 2, 3 of v[0] become columns 2g, 2g + 1 of keys 2t | 2t + 1; v[1]: 8 keys later; v[2], v[3]: 16
        // columns later.
        uint32_t v[4];
        load_matrices_transposed(v, &tile.values[j * 16 + lane % 16][i * 32 + lane / 16 * 16]);
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const uint32_t low = v[2 * part], high = v[2 * part + 1];
          const uint32_t even[2] = {centred_halves(low, 0x4240), centred_halves(high, 0x4240)};
          const uint32_t odd[2] = {centred_halves(low, 0x4341), centred_halves(high, 0x4341)};
          mma_f16(sums[4 * i + 2 * part], p, even);
          mma_f16(sums[4 * i + 2 * part + 1], p, odd);
        }
      }
    }
  }

  __device__ __forceinline__ void add(const Attention& a, const Head& head, const Tile<kSize>& tile, int first,
                                      int query, int lane) {
    int products[kKeys / 8][4];
    multiply_keys(tile, lane, products);
    float scores[kKeys / 8][4];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[j][i] = __int_as_float(products[j][i]);
    }
    scale_scores(a, head, tile, first, query, lane % 4, scores);
    follow(scores);
    multiply_values(tile, lane, scores);
  }

  // `y`: of the head; `query`: the lane's first.
  __device__ __forceinline__ void store(const Attention& a, const float* value_scale, uint8_t* y, int query,
                                        int t) const {
    const int64_t pitch = static_cast<int64_t>(a.heads) * a.size;
#pragma unroll
    for (int i = 0; i < kSize / 16; ++i) {
      const int column = i * 16 + 4 * t;
      if (column >= a.size) return;
      float scale[4];
      load_together(value_scale + column, scale, a.size - column);
#pragma unroll
      for (int half_of = 0; half_of < 2; ++half_of) {
        const int row = query + half_of * 8;
        if (row >= a.keys) continue;
        const float per_mass = 1.f / mass[2 * half_of];
        uint8_t bytes[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          bytes[j] = requantize(sums[2 * i + j % 2][2 * half_of + j / 2] * per_mass, scale[j], a.y_zero);
        }
        store_together(y + row * pitch + column, bytes, a.size - column);
      }
    }
  }
};

// Blocks at a time that a multiprocessor's registers are shared by: as many as keep the sums without spills.
constexpr int blocks_of_sm(int size) { return size <= 32 ? 5 : size <= 64 ? 4 : size <= 128 ? 3 : 2; }

template <int kSize>
__global__ void __launch_bounds__(kThreads, blocks_of_sm(kSize)) attention_kernel(Attention a, int64_t blocks) {
  __shared__ Tile<kSize> tiles[2];
  constexpr int kKeys = Tile<kSize>::kKeys;
  const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  if (block >= blocks) return;
  const int groups = (a.keys + kQueries - 1) / kQueries;
  const int64_t of_batch = block / groups, batch = of_batch / a.heads;
  const int index = static_cast<int>(of_batch - batch * a.heads);
  const int64_t channels = static_cast<int64_t>(a.heads) * a.size, column = static_cast<int64_t>(index) * a.size;
  const uint8_t* q = a.qkv + batch * a.keys * 3 * channels + column;
  const Head head = {q, q + channels, q + 2 * channels, 3 * channels,
                     batch * a.mask.batch_stride + index * a.mask.head_stride, a.score_scale[index]};

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_query = static_cast<int>(block - of_batch * groups) * kQueries + warp * kQueriesOfWarp;
  const int query = first_query + lane / 4;
  stage(a, head, 0, tiles[0]);
  copy_commit();
  Queries<kSize> queries;
  queries.load(a, head, first_query, lane / 4, lane % 4);
  for (int first = 0, i = 0; first < a.keys; first += kKeys, i ^= 1) {
    copy_wait<0>();
    __syncthreads();  // this tile has landed, and the other one has been read
    if (first + kKeys < a.keys) stage(a, head, first + kKeys, tiles[i ^ 1]);
    copy_commit();
    if (first_query < a.keys) queries.add(a, head, tiles[i], first, query, lane);
  }
  queries.store(a, a.value_scale + column, a.y + batch * a.keys * channels + column, query, lane % 4);
}

template <int kSize>
void launch_attention(const Attention& arguments, void* stream) {
  constexpr int64_t kMostColumns = 1 << 30;
  const int64_t blocks = arguments.batch * arguments.heads * ((arguments.keys + kQueries - 1) / kQueries);
  const int64_t columns = std::min(blocks, kMostColumns);
  const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>((blocks + columns - 1) / columns));
  OC_LAUNCH((attention_kernel<kSize>), grid, dim3(kThreads), 0, stream, arguments, blocks);
}

}  // namespace

void attention(const Attention& arguments, void* stream) {
  if (arguments.batch <= 0 || arguments.keys <= 0 || arguments.heads <= 0) return;
  if (arguments.size <= 32) return launch_attention<32>(arguments, stream);
  if (arguments.size <= 64) return launch_attention<64>(arguments, stream);
  if (arguments.size <= 96) return launch_attention<96>(arguments, stream);
  if (arguments.size <= 128) return launch_attention<128>(arguments, stream);
  if (arguments.size <= 192) return launch_attention<192>(arguments, stream);
  launch_attention<256>(arguments, stream);
}

}  // namespace oc::cuda
