#include "ops/weightonlylinear.hpp"

#include <algorithm>
#include <climits>
#include <cmath>

#include "cpu/weight_only.hpp"
#include "ops/activation.hpp"
#include "ops/buffer.hpp"
#include "ops/registry.hpp"

namespace oc {

WeightOnlyNode::WeightOnlyNode(const Info& info) {
  const Tensor w = info.constant(kW, kU8, "w"), w_scale = info.constant(kWScale, kF32, "w_scale");
  constexpr int64_t kMostK = 1 << 20, kMostN = 1 << 30;
  const int64_t wanted_bits = info.integer("bits", 4), size = info.integer("block_size", 32);
  require(wanted_bits == 4 || wanted_bits == 8, "bits must be 4 or 8");
  require(size == 0 || size == 32 || size == 64 || size == 128, "block_size must be 0, 32, 64 or 128");
  const int packed = wanted_bits == 4 ? 2 : 1;  // codes of a byte
  require(w.rank() == 2 && w.size() > 0 && w.dim(0) <= kMostN && w.dim(1) <= kMostK / packed,
          "w must be [N, K], with 4 bits [N, (K + 1) / 2]");
  bits = static_cast<int>(wanted_bits), block = static_cast<int>(size);
  n = static_cast<int>(w.dim(0)), k = static_cast<int>(w.dim(1)) * packed;
  blocks = block ? (k + block - 1) / block : 1;
  gated = info.integer("gated", 0) != 0;
  require(!gated || n % 2 == 0, "a gated layer must have a row of up for each row of gate");
  codes = w.as<uint8_t>(), scale = w_scale.as<float>();
  require(w_scale.rank() == 2 && w_scale.dim(0) == n && w_scale.dim(1) == blocks, "w_scale must be [N, blocks]");
  require(std::all_of(scale, scale + w_scale.size(), [](float x) { return std::isfinite(x); }),
          "w_scale must be finite");
  if (const auto zero = info.constant(kWZero)) {
    require(zero->type == kU8 && zero->shape == w_scale.shape, "w_zero_point must be uint8 [N, blocks]");
    zero_point = zero->as<uint8_t>();
    require(bits == 8 || std::all_of(zero_point, zero_point + zero->size(), [](uint8_t z) { return z < 16; }),
            "w_zero_point must be below 16");
  }
  if (const auto given = info.constant(kBias)) {
    require(given->type == kF32 && given->size() == n, "bias must have N floats");
    bias = given->as<float>();
  }
  activation = info.text("activation", "");
}

WeightOnlyRun::WeightOnlyRun(const WeightOnlyNode& node, Context& context) : x(context.input(WeightOnlyNode::kX)) {
  require(x.rank() >= 1, "x must have an axis");
  const int64_t last = x.dim(-1);
  require(last == node.k || (node.bits == 4 && last == node.k - 1 && last > 0),
          "the last dimension of x is not that of w");
  k = static_cast<int>(last);
  require(x.size() / k <= INT_MAX - 64, "x has too many rows");
  m = static_cast<int>(x.size() / k);
  shape = x.shape;
  shape.back() = node.columns();
  // They would count as absent if they were computed.
  for (size_t i : {WeightOnlyNode::kWZero, WeightOnlyNode::kBias}) {
    const bool constant = i == WeightOnlyNode::kBias ? node.bias != nullptr : node.zero_point != nullptr;
    require(constant || !context.has(i), "w_zero_point and bias must be constants");
  }
  if (!context.has(WeightOnlyNode::kResidual)) return;
  const Tensor given = context.input(WeightOnlyNode::kResidual);
  require(given.type == x.type, "residual must be of the type of x");
  require(given.shape == shape, "residual has not the shape of the result");
  residual = given.data;
}

namespace {

enum Scratch { kScratchX, kScratchSums, kScratchTile };

struct WeightOnlyLinear : Kernel {
  WeightOnlyNode node;
  int panels, block;
  Activation activation;
  Buffer<uint8_t> codes;
  Buffer<float> scale, bias;
  Buffer<int8_t> zero_point;

  explicit WeightOnlyLinear(const Info& info) : node(info), activation(make_activation(node.activation, 0)) {
    const auto& kernels = weight_only();
    const int width = node.gated ? kernels.panel / 2 : kernels.panel;
    panels = (node.columns() + width - 1) / width;
    block = node.block ? node.block : (node.k + 7) / 8 * 8;
    const size_t padded = static_cast<size_t>(panels) * kernels.panel;
    codes = Buffer<uint8_t>(kernels.code_bytes(node.bits, node.k, panels));
    scale = Buffer<float>(padded * node.blocks), bias = Buffer<float>(padded);
    if (node.zero_point) zero_point = Buffer<int8_t>(padded * node.blocks);
    const WeightOnlySource source{node.bits, node.n, node.k, node.block, node.blocks, node.gated,
                                  node.codes, node.scale, node.zero_point, node.bias};
    kernels.pack(source, panels, codes.data(), scale.data(), zero_point.data(), bias.data());
  }

  void compute(Context& context) override {
    const WeightOnlyRun run(node, context);
    const bool halves = run.x.type == ElementType::kFloat16;
    const Tensor y = context.output(0, run.shape, run.x.type);
    if (run.m == 0 || !y.data) return;
    const int stride = (run.k + 7) / 8 * 8;
    const bool copies = halves || stride != run.k;
    constexpr int64_t kCopyFloats = 4 << 20;
    const int at_once = copies ? static_cast<int>(std::max<int64_t>(64, kCopyFloats / stride)) : run.m;
    for (int begin = 0; begin < run.m; begin += at_once) {
      const int rows = std::min(at_once, run.m - begin);
      const int64_t from = static_cast<int64_t>(begin) * run.k, to = static_cast<int64_t>(begin) * node.columns();
      const float* x = copies ? nullptr : run.x.as<float>() + from;
      if (halves) x = widened(context, run.x.as<uint16_t>() + from, rows, run.k, stride);
      if (!halves && copies) x = padded(context, run.x.as<float>() + from, rows, run.k, stride);
      WeightOnlyOutput output{node.columns(), activation};
      if (halves) {
        output.half_y = y.as<uint16_t>() + to;
        if (run.residual) output.half_residual = static_cast<const uint16_t*>(run.residual) + to;
      } else {
        output.y = y.as<float>() + to;
        if (run.residual) output.residual = static_cast<const float*>(run.residual) + to;
      }
      multiply(context, {x, stride, run.k, sums_of(context, x, rows, stride)}, rows, output);
    }
  }

  // fn(row) for all rows, some at a time.
  template <class Fn>
  static void for_rows(Context& context, int rows, int of_row, Fn&& fn) {
    const int step = std::max(1, (1 << 16) / of_row);
    context.parallel((static_cast<size_t>(rows) + step - 1) / step, [&](size_t i) {
      const int begin = static_cast<int>(i) * step, end = std::min(rows, begin + step);
      for (int row = begin; row < end; row++) fn(static_cast<ptrdiff_t>(row));
    });
  }

  static float* copy_of(int rows, int stride) {
    return reinterpret_cast<float*>(scratch(kScratchX, static_cast<size_t>(rows) * stride * sizeof(float)));
  }

  static const float* widened(Context& context, const uint16_t* x, int rows, int k, int stride) {
    float* copy = copy_of(rows, stride);
    for_rows(context, rows, k, [=](ptrdiff_t row) { weight_only().widen(x + row * k, k, copy + row * stride, stride); });
    return copy;
  }

  static const float* padded(Context& context, const float* x, int rows, int k, int stride) {
    float* copy = copy_of(rows, stride);
    for_rows(context, rows, k, [=](ptrdiff_t row) {
      std::copy_n(x + row * k, k, copy + row * stride);
      std::fill(copy + row * stride + k, copy + (row + 1) * stride, 0.f);
    });
    return copy;
  }

  // Null where they are not needed.
  const float* sums_of(Context& context, const float* x, int rows, int stride) const {
    if (!node.zero_point || rows > weight_only().few_rows) return nullptr;
    const size_t count = static_cast<size_t>(rows) * node.blocks;
    float* sums = reinterpret_cast<float*>(scratch(kScratchSums, count * sizeof(float)));
    const int of_block = block, blocks = node.blocks;
    for_rows(context, rows, stride, [=](ptrdiff_t row) {
      weight_only().sum_blocks(x + row * stride, stride, of_block, sums + row * blocks);
    });
    return sums;
  }

  void multiply(Context& context, const WeightOnlyRows& rows, int m, const WeightOnlyOutput& y) const {
    const auto& kernels = weight_only();
    constexpr int kRows = 96;               // whose sums for a panel stay in L1 or L2
    constexpr double kLeastWork = 1 << 19;  // multiplications a task
    const int down = (m + kRows - 1) / kRows, part = (m + down - 1) / down;
    const double work = static_cast<double>(part) * kernels.panel * node.k;
    const int together = std::clamp(static_cast<int>(kLeastWork / work), 1, panels);
    const int across = (panels + together - 1) / together;
    const WeightOnlyPacked w{node.bits, node.k, block, node.blocks, node.gated, codes.data(), scale.data(),
                             node.zero_point ? zero_point.data() : nullptr, bias.data()};
    context.parallel(static_cast<size_t>(across) * down, [&](size_t i) {
      const int begin = static_cast<int>(i) / across * part, first = static_cast<int>(i) % across * together;
      auto* tile = reinterpret_cast<float*>(scratch(kScratchTile, kernels.scratch_floats(part) * sizeof(float)));
      kernels.multiply(w, rows, begin, std::min(m, begin + part), first, std::min(panels, first + together), y, tile);
    });
  }
};

OpDefinition of_type(ElementType type) {
  return {"WeightOnlyLinear",
          {{type}, {kU8}, {kF32}, {kU8, optional}, {kF32, optional}, {type, optional}},
          {{type}},
          make<WeightOnlyLinear>};
}

}  // namespace

OpDefinition weightonlylinear() { return of_type(kF32); }
OpDefinition weightonlylinear_half() { return of_type(ElementType::kFloat16); }

}  // namespace oc
