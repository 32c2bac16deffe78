#include "cpu/weight_only.hpp"

#include "cpu/weight_only_decode.hpp"
#include "cpu/weight_only_half.hpp"

namespace oc::OC_ISA {
namespace {

constexpr int kFewAtOnce = 4, kFewRows = 4 * kFewAtOnce;
constexpr int kManyAtOnce = 6;  // by kVectors accumulators
constexpr int kChunk = 256;     // k whose decoded weights stay in the caches; a multiple of every block

int octets(int k) { return ceil_div(k, kOctet); }

size_t code_bytes(int bits, int k, int panels) {
  return static_cast<size_t>(panels) * octets(k) * kPanel * bits;
}

// The row of the source at a place of a panel; -1: none.
int row_of(const WeightOnlySource& s, int panel, int at) {
  constexpr int kHalf = kPanel / 2;
  if (!s.gated) return panel * kPanel + at < s.n ? panel * kPanel + at : -1;
  const int column = panel * kHalf + at % kHalf;
  return column < s.n / 2 ? 2 * column + at / kHalf : -1;
}

// Less the middle code; 0 where there is none.
int centred_code(const WeightOnlySource& s, int row, int k) {
  if (row < 0 || k >= s.k) return 0;
  if (s.bits == 8) return s.codes[static_cast<size_t>(row) * s.k + k] - 128;
  return (s.codes[static_cast<size_t>(row) * ((s.k + 1) / 2) + k / 2] >> 4 * (k % 2) & 15) - 8;
}

void pack(const WeightOnlySource& s, int panels, uint8_t* codes, float* scale, int8_t* zero_point, float* bias) {
  const int middle = s.bits == 4 ? 8 : 128;
  for (int p = 0; p < panels; p++) {
    int rows[kPanel];
    for (int i = 0; i < kPanel; i++) rows[i] = row_of(s, p, i);
    for (int k = 0; k < octets(s.k) * kOctet; k += s.bits == 4 ? kOctet : 1)
      for (int row : rows) {
        uint32_t word = 0;
        for (int j = 0; s.bits == 4 && j < kOctet; j++)
          word |= (static_cast<uint32_t>(centred_code(s, row, k + j)) & 15u) << 4 * j;
        if (s.bits == 8) word = static_cast<uint32_t>(centred_code(s, row, k));
        for (int i = 0; i < (s.bits == 4 ? 4 : 1); i++) *codes++ = static_cast<uint8_t>(word >> 8 * i);
      }
    for (int b = 0; b < s.blocks; b++)
      for (int row : rows) {
        const size_t at = static_cast<size_t>(row < 0 ? 0 : row) * s.blocks + b;
        *scale++ = row < 0 ? 0.f : s.scale[at];
        if (s.zero_point) *zero_point++ = static_cast<int8_t>(row < 0 ? 0 : s.zero_point[at] - middle);
      }
    for (int row : rows) *bias++ = row < 0 || !s.bias ? 0.f : s.bias[row];
  }
}

void widen(const uint16_t* halves, int k, float* row, ptrdiff_t stride) {
  to_floats(halves, row, k);
  for (ptrdiff_t i = k; i < stride; i++) row[i] = 0;
}

void sum_blocks(const float* row, ptrdiff_t stride, int block, float* sums) {
  for (ptrdiff_t begin = 0; begin < stride; begin += block) {
    const ptrdiff_t end = least<ptrdiff_t>(stride, begin + block);
    vf part = setf(0);
    ptrdiff_t i = begin;
    for (; i + kLanes <= end; i += kLanes) part = add(part, loadf(row + i));
    float total = sum(part);
    for (; i < end; i++) total += row[i];
    *sums++ = total;
  }
}

// Sums of MR rows and one panel, weights decoded in registers: bound by the memory that weights come from.
template <int kBits, int MR>
__attribute__((noinline)) void multiply_few(const WeightOnlyPacked& w, const WeightOnlyRows& rows, int row, int panel,
                                            float* out) {
  constexpr int kChains = MR == 1 ? 2 : 1;
  const Nibbles nibbles;
  const int count = octets(w.k), of_block = w.block / kOctet;
  const uint8_t* codes = w.codes + static_cast<size_t>(panel) * count * kOctetBytes<kBits>;
  const float* x = rows.x + row * rows.stride;
  vf sums[MR * kVectors];
  unroll<MR * kVectors>([&](auto i) OC_LAMBDA { sums[i] = setf(0); });
  for (int b = 0; b < w.blocks; b++) {
    vf part[kChains * MR * kVectors];
    unroll<kChains * MR * kVectors>([&](auto i) OC_LAMBDA { part[i] = setf(0); });
    const int end = least(count, (b + 1) * of_block);
    for (int i = b * of_block; i < end; i++, x += kOctet, codes += kOctetBytes<kBits>) {
      for (int line = 0; line < kOctetBytes<kBits>; line += 64) prefetch(codes + 4096 + line);
      for_codes<kBits>(codes, nibbles, [&](auto j, auto v, vf code) OC_LAMBDA {
        unroll<MR>([&](auto m) OC_LAMBDA {
          constexpr int at = (j % kChains * MR + m) * kVectors + v;
          part[at] = fma(setf(x[m * rows.stride + j]), code, part[at]);
        });
      });
    }
    const size_t at = (static_cast<size_t>(panel) * w.blocks + b) * kPanel;
    unroll<MR * kVectors>([&](auto i) OC_LAMBDA {
      constexpr int m = i / kVectors, v = i % kVectors;
      vf sum = part[i];
      if constexpr (kChains == 2) sum = add(sum, part[MR * kVectors + i]);
      if (w.zero_point) {
        const vf zero = to_float(load_s8(w.zero_point + at + v * kLanes));
        sum = sub(sum, mul(zero, setf(rows.sums[static_cast<ptrdiff_t>(row + m) * w.blocks + b])));
      }
      sums[i] = fma(sum, loadf(w.scale + at + v * kLanes), sums[i]);
    });
  }
  unroll<MR * kVectors>([&](auto i) OC_LAMBDA { storef(out + i * kLanes, sums[i]); });
}

// The weights of one panel from octet `begin` to `end`, [k][panel].
template <int kBits>
void decode_chunk(const WeightOnlyPacked& w, int panel, int begin, int end, float* out) {
  const Nibbles nibbles;
  const int of_block = w.block / kOctet;
  const uint8_t* codes = w.codes + (static_cast<size_t>(panel) * octets(w.k) + begin) * kOctetBytes<kBits>;
  while (begin < end) {
    const int b = begin / of_block, block_end = least(end, (b + 1) * of_block);
    const size_t at = (static_cast<size_t>(panel) * w.blocks + b) * kPanel;
    vf scale[kVectors], zero[kVectors];
    unroll<kVectors>([&](auto v) OC_LAMBDA {
      scale[v] = loadf(w.scale + at + v * kLanes);
      zero[v] = w.zero_point ? to_float(load_s8(w.zero_point + at + v * kLanes)) : setf(0);
    });
    for (; begin < block_end; begin++, codes += kOctetBytes<kBits>, out += kOctet * kPanel)
      for_codes<kBits>(codes, nibbles, [&](auto j, auto v, vf code) OC_LAMBDA {
        storef(out + (j * kVectors + v) * kLanes, mul(sub(code, zero[v]), scale[v]));
      });
  }
}

// Adds `count` products to the sums of MR rows and one panel, or begins them.
template <int MR>
__attribute__((noinline)) void multiply_many(const float* x, ptrdiff_t stride, int count, const float* w, bool begins,
                                             float* tile) {
  vf sums[MR * kVectors];
  unroll<MR * kVectors>([&](auto i) OC_LAMBDA { sums[i] = begins ? setf(0) : loadf(tile + i * kLanes); });
  for (int k = 0; k < count; k++, w += kPanel) {
    vf b[kVectors];
    unroll<kVectors>([&](auto v) OC_LAMBDA { b[v] = loadf(w + v * kLanes); });
    unroll<MR>([&](auto m) OC_LAMBDA {
      const vf a = setf(x[m * stride + k]);
      unroll<kVectors>([&](auto v) OC_LAMBDA { sums[m * kVectors + v] = fma(a, b[v], sums[m * kVectors + v]); });
    });
  }
  unroll<MR * kVectors>([&](auto i) OC_LAMBDA { storef(tile + i * kLanes, sums[i]); });
}

OC_INLINE vf load_some(const float* p, int count) { return count >= kLanes ? loadf(p) : loadf(p, count); }

// One vector of results, of which `count` are in the row.
OC_INLINE void put(const WeightOnlyOutput& y, ptrdiff_t at, int count, vf value) {
  if (count <= 0) return;
  const int some = least(count, kLanes);
  if (y.residual) value = add(value, load_some(y.residual + at, some));
  float lanes[kLanes];
  if (y.half_residual) {
    storef(lanes, setf(0));
    to_floats(y.half_residual + at, lanes, some);
    value = add(value, loadf(lanes));
  }
  if (y.half_y) {
    storef(lanes, value);
    to_halves(lanes, y.half_y + at, some);
  } else if (some == kLanes) {
    storef(y.y + at, value);
  } else {
    storef(y.y + at, value, some);
  }
}

using Finish = void (*)(const WeightOnlyPacked& w, const WeightOnlyOutput& y, int row, int rows, int panel,
                        const float* sums);

template <Activation::Kind A>
void finish(const WeightOnlyPacked& w, const WeightOnlyOutput& y, int row, int rows, int panel, const float* sums) {
  const Activate<A> activate(y.activation);
  const int width = w.gated ? kPanel / 2 : kPanel, column = panel * width;
  const float* bias = w.bias + static_cast<size_t>(panel) * kPanel;
  for (int end = row + rows; row < end; row++, sums += kPanel) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(row) * y.columns + column;
    vf linear[kVectors];
    unroll<kVectors>([&](auto v) OC_LAMBDA { linear[v] = add(loadf(sums + v * kLanes), loadf(bias + v * kLanes)); });
    if (w.gated) {
      unroll<kVectors / 2>([&](auto v) OC_LAMBDA {
        const vf value = mul(activate(linear[v]), linear[v + kVectors / 2]);
        put(y, at + v * kLanes, y.columns - column - v * kLanes, value);
      });
    } else {
      unroll<kVectors>([&](auto v) OC_LAMBDA {
        put(y, at + v * kLanes, y.columns - column - v * kLanes, activate(linear[v]));
      });
    }
  }
}

Finish finish_of(const Activation& activation) {
  return with_kind(activation, [](auto kind) -> Finish { return finish<kind>; });
}

template <int kBits>
void multiply_panel(const WeightOnlyPacked& w, const WeightOnlyRows& rows, int begin, int end, int panel,
                    const WeightOnlyOutput& y, Finish finish_rows, float* scratch) {
  if (end - begin <= kFewRows && (!w.zero_point || rows.sums)) {
    for (int row = begin; row < end; row += kFewAtOnce) {
      const int count = least(kFewAtOnce, end - row);
      switch (count) {
        case 1: multiply_few<kBits, 1>(w, rows, row, panel, scratch); break;
        case 2: multiply_few<kBits, 2>(w, rows, row, panel, scratch); break;
        case 3: multiply_few<kBits, 3>(w, rows, row, panel, scratch); break;
        default: multiply_few<kBits, kFewAtOnce>(w, rows, row, panel, scratch);
      }
      finish_rows(w, y, row, count, panel, scratch);
    }
    return;
  }
  float *decoded = scratch, *tile = scratch + kChunk * kPanel;
  for (int k = 0; k < rows.k; k += kChunk) {
    const int count = least(kChunk, rows.k - k);
    decode_chunk<kBits>(w, panel, k / kOctet, octets(k + count), decoded);
    for (int row = begin, left; (left = end - row) > 0; row += kManyAtOnce) {
      const float* x = rows.x + row * rows.stride + k;
      float* sums = tile + static_cast<ptrdiff_t>(row - begin) * kPanel;
      switch (least(left, kManyAtOnce)) {
        case 1: multiply_many<1>(x, rows.stride, count, decoded, k == 0, sums); break;
        case 2: multiply_many<2>(x, rows.stride, count, decoded, k == 0, sums); break;
        case 3: multiply_many<3>(x, rows.stride, count, decoded, k == 0, sums); break;
        case 4: multiply_many<4>(x, rows.stride, count, decoded, k == 0, sums); break;
        case 5: multiply_many<5>(x, rows.stride, count, decoded, k == 0, sums); break;
        default: multiply_many<kManyAtOnce>(x, rows.stride, count, decoded, k == 0, sums);
      }
    }
  }
  finish_rows(w, y, begin, end - begin, panel, tile);
}

size_t scratch_floats(int rows) { return static_cast<size_t>(kChunk + most(rows, kFewAtOnce)) * kPanel; }

void multiply(const WeightOnlyPacked& w, const WeightOnlyRows& rows, int begin, int end, int first, int last,
              const WeightOnlyOutput& y, float* scratch) {
  const Finish finish_rows = finish_of(y.activation);
  for (int panel = first; panel < last; panel++) {
    if (w.bits == 4) multiply_panel<4>(w, rows, begin, end, panel, y, finish_rows, scratch);
    else multiply_panel<8>(w, rows, begin, end, panel, y, finish_rows, scratch);
  }
}

}  // namespace

extern const WeightOnlyKernels weight_only = {kPanel, kFewRows,       code_bytes, pack, widen,
                                              sum_blocks, scratch_floats, multiply};

}  // namespace oc::OC_ISA
