#include "cuda/sparse24_pack.hpp"

#include <cstring>
#include <numeric>

namespace oc::cuda {

namespace {

// Two of four weights, in rising columns, zeros among them where fewer are not zero.
struct Pair {
  int8_t values[2];
  uint32_t columns[2];
};

// The columns of the weights of `four` that are not zero, filled up to two; false where there are more.
bool two_of(const int8_t (&four)[4], Pair& pair) {
  int count = 0;
  for (uint32_t column = 0; column < 4; ++column) {
    if (four[column] == 0) continue;
    if (count == 2) return false;
    pair.columns[count++] = column;
  }
  if (count == 0) pair.columns[0] = 0;
  if (count == 1 && pair.columns[0] == 3) pair.columns[0] = 2;
  if (count < 2) pair.columns[1] = 3;
  for (int i = 0; i < 2; ++i) pair.values[i] = four[pair.columns[i]];
  return true;
}

// 64 weights of one output, `here` of them within the matrix, as row `row` of a block.
bool pack_row(const int8_t* w, int64_t here, int row, int8_t* block) {
  for (int group = 0; group < 16; ++group) {
    const int first = group % 4 * 16 + group / 4 * 4;
    int8_t four[4] = {};
    for (int i = 0; i < 4; ++i) four[i] = first + i < here ? w[first + i] : int8_t{0};
    Pair pair;
    if (!two_of(four, pair)) return false;
    const int stored = 2 * group, lane = row % 8 * 4 + stored % 16 / 4, reg = row / 8 + stored / 16 * 2;
    for (int i = 0; i < 2; ++i) block[lane * 16 + reg * 4 + stored % 4 + i] = pair.values[i];
    const int holder = row % 8 * 4 + row / 8 + group / 8 * 2;
    const uint32_t bits = pair.columns[0] | pair.columns[1] << 2;
    int8_t& metadata = block[kSparseValueBytes + holder * 4 + group % 8 / 2];
    metadata = static_cast<int8_t>(static_cast<uint8_t>(metadata) | bits << group % 2 * 4);
  }
  return true;
}

}  // namespace

bool pack_sparse24(const int8_t* w, int n, int k, int8_t* packed, int32_t* weight_sums) {
  std::memset(packed, 0, packed_sparse24_bytes(n, k));
  const int64_t deep = slabs_of(k, kSlabDepth), outputs = slabs_of(n, kSparseOutputs) * kSparseOutputs;
  for (int64_t output = 0; output < outputs; ++output) {
    const bool real = output < n;  // rows beyond are packed too: their metadata must be valid
    if (real) weight_sums[output] = std::accumulate(w + output * k, w + (output + 1) * k, 0);
    for (int64_t step = 0; step < deep; ++step) {
      int8_t* block = packed + (output / kSparseOutputs * deep + step) * kSparseBytes;
      const int64_t first = step * kSlabDepth;
      const int8_t* weights = real ? w + output * k + first : w;
      if (!pack_row(weights, real ? k - first : 0, static_cast<int>(output % kSparseOutputs), block)) return false;
    }
  }
  return true;
}

}  // namespace oc::cuda
