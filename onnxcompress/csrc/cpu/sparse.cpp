#include "cpu/sparse.hpp"

#include "cpu/sparse_finish.hpp"
#include "cpu/sparse_lanes.hpp"

namespace oc::OC_ISA {
namespace {

// Pieces of scratch memory.
struct Scratch {
  uint8_t* x;      // [ceil(k / 4)][kTileRows][4]
  int32_t* sums;   // [kBatch][kTileRows]
  uint8_t* bytes;  // [kFlush / 4][kTileRows][4]
  float* rows;     // [kTileRows][n padded], or [n padded][kTileRows]: rows that are not finished yet
};

OC_INLINE int padded16(int n) { return ceil_div(n, kBatch) * kBatch; }

Scratch split(uint8_t* memory, int k) {
  Scratch s;
  s.sums = reinterpret_cast<int32_t*>(memory), memory += sizeof(int32_t) * kBatch * kTileRows;
  s.bytes = memory, memory += kFlush * kTileRows;
  s.x = memory, memory += static_cast<size_t>(ceil_div(k, 4)) * kTileRows * 4;
  s.rows = reinterpret_cast<float*>(memory);
  return s;
}

size_t scratch_bytes(int n, int k) {
  const size_t row_bytes = sizeof(int32_t) * kBatch + kFlush + static_cast<size_t>(ceil_div(k, 4)) * 4;
  return kTileRows * (row_bytes + sizeof(float) * padded16(n));
}

// Sums [output][kTileRows] of kBatch outputs from `first` on. kReal: of bytes with parameters of their rows, as reals.
template <int V, bool kReal, class Address>
__attribute__((noinline)) void multiply_batch(const SparseWeights& w, int first, const Address& address,
                                              const SparseOutput& y, const TileRows& rows, int32_t* sums) {
  auto run = [&](int group, auto outputs, int part, int block) OC_LAMBDA {
    const int begin = w.row_start[group], count = w.row_start[group + 1] - begin;
    const int output = group * block + part;
    auto finished = [&](int r, int v, vi sum) OC_LAMBDA {
      return kReal ? real_sum(sum, y.weight_sum + output + r, rows, v) : sum;
    };
    multiply_blocks<V, outputs>(w.values + static_cast<size_t>(begin) * block * 4 + part * 4, block * 4,
                                w.column + begin, count, w.initial + output, address, finished,
                                sums + (output - first) * kTileRows);
  };
  const int end = least(first + kBatch, w.n);
  if (w.block == 1)
    for (int o = first; o < end; o++) run(o, Index<1>{}, 0, 1);
  else if (w.block == 4)
    for (int o = first; o < end; o += 4) run(o / 4, Index<4>{}, 0, 4);
  else
    for (int part = 0; part < 16; part += 4) run(first / 16, Index<4>{}, part, 16);
}

// Sums to results; one for each activation and for sums of integers and of reals.
struct Finish {
  void (*to_bytes)(const SparseOutput& y, int vectors, int first, const int32_t* sums, uint8_t* bytes);
  void (*to_floats)(const SparseOutput& y, const TileRows& rows, int n, int first, int outputs, const int32_t* sums,
                    float* to, int stride);
  void (*to_lanes)(const SparseOutput& y, int vectors, int first, int outputs, const int32_t* sums, float* to,
                   LaneRanges& ranges);
  void (*to_reals)(const SparseOutput& y, int first_row, int count, int begin, int end, int32_t* sums, int pitch);
};

template <Activation::Kind A>
Finish finish_with(bool real) {
  if (real) return {batch_to_bytes<A, true>, batch_to_floats<A, true>, batch_to_lanes<A, true>, rows_to_reals<A>};
  return {batch_to_bytes<A, false>, batch_to_floats<A, false>, batch_to_lanes<A, false>, rows_to_reals<A>};
}

Finish finish_of(const SparseOutput& y) {
  const bool real = y.x_scale;
  Finish finish = with_kind(y.activation, [&](auto kind) { return finish_with<kind>(real); });
#if defined(OC_AVX512)
  if (y.words) finish.to_bytes = y.x_scale ? batch_to_bytes_by_words<true> : batch_to_bytes_by_words<false>;
#endif
  return finish;
}

// Do whole rows have to be complete before they are written?
bool needs_rows(const SparseOutput& y) { return y.bytes && (y.row_scale || y.residual); }

// One tile: outputs [begin, end) by V vectors of rows.
template <int V, class Address>
void run_tile(const SparseWeights& w, const Address& address, const TileRows& rows, int begin, int end,
              const SparseOutput& y, const Finish& finish, const Scratch& s) {
  const bool whole = needs_rows(y), to_bytes = y.bytes && !whole;
  const bool by_lane = whole && y.row_scale && !y.residual && !y.floats;
  LaneRanges ranges;
  for (int first = begin; first < end; first += kBatch) {
    if (y.x_scale) multiply_batch<V, true>(w, first, address, y, rows, s.sums);
    else multiply_batch<V, false>(w, first, address, y, rows, s.sums);
    const int outputs = least(kBatch, end - first);
    if (by_lane) {
      finish.to_lanes(y, V, first, outputs, s.sums, s.rows + static_cast<size_t>(first) * kTileRows, ranges);
      continue;
    }
    if (!to_bytes) {
      finish.to_floats(y, rows, w.n, first, outputs, s.sums, whole ? s.rows : nullptr, padded16(w.n));
      continue;
    }
    const int kept = (first - begin) % kFlush;
    finish.to_bytes(y, V, first, s.sums, s.bytes + kept * kTileRows);
    if (kept + kBatch >= kFlush || first + kBatch >= end)
      flush_bytes(y, rows, w.n, first - kept, kept + outputs, s.bytes);
  }
  if (!whole) return;
  if (by_lane) return lanes_to_bytes(y, rows, w.n, s.rows, ranges, s.bytes);
  for (int i = 0; i < V * kLanes; i++)
    if (rows.row[i] >= 0)
      finish_row(y, w.n, rows.row[i], begin, end, s.rows + static_cast<size_t>(i) * padded16(w.n) + begin);
}

// f(number of vectors of `rows` rows), as a constant.
template <class F>
OC_INLINE void with_vectors(int rows, F&& f) {
  switch (ceil_div(rows, kLanes)) {
    case 1: return f(Index<1>{});
    case 2: return f(Index<2>{});
#if defined(OC_AVX512)
    case 3: return f(Index<3>{});
    case 4: return f(Index<4>{});
#endif
  }
}

constexpr int kFewBy16 = 16, kFewBy4 = 2;  // most rows that are taken one by one

// Rows [row, row + count) with outputs as lanes; few of them, and blocks of 16 or 4.
void linear_few(const SparseWeights& w, const uint8_t* x, ptrdiff_t stride, int row, int count, int begin, int end,
                const SparseOutput& y, const Finish& finish, const Scratch& s) {
  const int pitch = padded16(end - begin), k4 = ceil_div(w.k, 4) * 4;
  x += row * stride;
  if (k4 != w.k) {
    for (int i = 0; i < count; i++) {
      std::memcpy(s.x + i * k4, x + i * stride, w.k);
      std::memset(s.x + i * k4 + w.k, 0, k4 - w.k);
    }
    x = s.x, stride = k4;
  }
  for (int done = 0; done < count;) {
    const uint8_t* from = x + done * stride;
    int32_t* to = reinterpret_cast<int32_t*>(s.rows) + static_cast<size_t>(done) * pitch;
    auto run = [&](auto rows) {
      if (w.block == 16) multiply_lanes<rows>(w, from, stride, begin, end, to, pitch);
      else if constexpr (rows <= kFewBy4) multiply_lanes4<rows>(w, from, stride, begin, end, to, pitch);
      done += rows;
    };
    const int left = count - done;
    left >= 8 ? run(Index<8>{}) : left >= 4 ? run(Index<4>{}) : left >= 2 ? run(Index<2>{}) : run(Index<1>{});
  }
  int32_t* sums = reinterpret_cast<int32_t*>(s.rows);
  finish.to_reals(y, row, count, begin, end, sums, pitch);
  for (int i = 0; i < count; i++)
    finish_row(y, w.n, row + i, begin, end, s.rows + static_cast<size_t>(i) * pitch);
}

void linear(const SparseWeights& w, const uint8_t* x, ptrdiff_t stride, int begin, int end, int column_begin,
            int column_end, const SparseOutput& y, uint8_t* memory) {
  const Scratch s = split(memory, w.k);
  const Finish finish = finish_of(y);
  for (int row = begin; row < end; row += kTileRows) {
    const int count = least(end - row, kTileRows);
    if (w.block > 1 && count <= (w.block == 16 ? kFewBy16 : kFewBy4)) {
      linear_few(w, x, stride, row, count, column_begin, column_end, y, finish, s);
      continue;
    }
    with_vectors(count, [&](auto v) {
      constexpr int kRows = v * kLanes;
      to_lanes(x + row * stride, count, stride, w.k, kRows, s.x);
      TileRows rows;
      rows.vectors = v;
      for (int i = 0; i < kRows; i++) rows.row[i] = i < count ? row + i : -1;
      set_row_parameters(y, rows);
      auto address = [x = s.x](int32_t column) OC_LAMBDA { return x + static_cast<size_t>(column) * kRows * 4; };
      run_tile<v>(w, address, rows, column_begin, column_end, y, finish, s);
    });
  }
}

void convolve(const SparseWeights& w, const SparseWindow& x, const SparseOutput& y, uint8_t* memory) {
  const Scratch s = split(memory, 0);
  const Finish finish = finish_of(y);
  const int positions = (x.lines - 1) * x.width + x.columns;
  for (int position = 0; position < positions; position += kTileRows) {
    const int count = least(positions - position, kTileRows);
    const uint8_t* at = x.x + static_cast<size_t>(position) * 4;
    with_vectors(count, [&](auto v) {
      TileRows rows;
      rows.vectors = v;
      for (int i = 0; i < v * kLanes; i++) {
        const int line = (position + i) / x.width, column = (position + i) % x.width;
        rows.row[i] = i < count && column < x.columns ? x.first + line * x.columns + column : -1;
      }
      auto address = [at, offset = x.offset](int32_t column) OC_LAMBDA { return at + offset[column]; };
      run_tile<v>(w, address, rows, 0, w.n, y, finish, s);
    });
  }
}

}  // namespace

extern const SparseKernels sparse = {kTileRows, scratch_bytes, linear, convolve, to_lanes};

}  // namespace oc::OC_ISA
