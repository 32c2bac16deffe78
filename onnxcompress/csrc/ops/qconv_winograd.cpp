#include "ops/qconv_winograd.hpp"

#include <cmath>
#include <cstdlib>

#include "ops/rounding.hpp"
#include "ops/tasks.hpp"

namespace oc {

namespace {

enum Slot { kShared = 2, kOwn, kSums };  // scratch: inputs of all tasks, inputs or weights of one, its sums

constexpr int64_t kWeightsBytes = 320 << 10;     // of L2, for weights that are not kept
constexpr int64_t kBlockBytes = 512 << 10;       // of L2, for the inputs and sums of a block of tiles
constexpr int64_t kMostKept = 2 << 20;           // bytes of transformed weights
constexpr int64_t kSharedInputs = 4 << 20;       // of a run that transforms its weights
constexpr int64_t kLeastTiles = 24;              // of a task: each reads all weights
constexpr int64_t kMostSum = (1 << 25) / 255;    // of weights of one sign, so that outputs are below 2^25

// Values from one product's block to the next: an odd number of cache lines, so that the 36 do not share sets.
template <class T>
ptrdiff_t odd_lines(size_t values) {
  return static_cast<ptrdiff_t>(((values * sizeof(T) + 63) / 64 | 1) * 64 / sizeof(T));
}

}  // namespace

bool Winograd::suits(const Tensor& w, const Window& window, int groups) {
  if (groups != 1 || window.kh != 3 || window.kw != 3 || window.stride_h != 1 || window.stride_w != 1 ||
      window.dilation_h != 1 || window.dilation_w != 1 || w.dim(3) % 4)
    return false;
  const int64_t taps = 9 * w.dim(3);
  for (int64_t o = 0; o < w.dim(0); o++) {
    int64_t positive = 0, negative = 0;
    for (const int8_t* p = w.as<int8_t>() + o * taps; p < w.as<int8_t>() + (o + 1) * taps; p++)
      (*p > 0 ? positive : negative) += std::abs(*p);
    if (std::max(positive, negative) > kMostSum) return false;
  }
  return true;
}

Winograd::Winograd(const PackedWeights& direct, int channels, const Window& window, uint8_t x_zero)
    : direct_(direct),
      window_(window),
      channels_(channels),
      padded_(round_up(channels, winograd().words)),
      keeps_(int64_t{direct.n} * channels * kWinogradProducts * 2 <= kMostKept),
      border_(channels) {
  std::memset(border_.data(), x_zero, channels);
}

int64_t Winograd::tiles(const Run& run) const {
  return run.images * ceil_divide(run.out_height, kWinogradOutputs) * ceil_divide(run.out_width, kWinogradOutputs);
}

// Tiles whose transformed inputs are there at a time where weights are not kept.
int64_t Winograd::tiles_at_once(int64_t tiles) const {
  const int64_t parts = ceil_divide(tiles * kWinogradProducts * padded_ * 2, kSharedInputs);
  return ceil_divide(tiles, parts);
}

// By the number of vector products that would take as long: measured on a Zen 4.
bool Winograd::pays(const Run& run) const {
  const double pixels = double(run.images) * run.out_height * run.out_width, count = tiles(run);
  if (pixels >= 1u << 31) return false;
  const double c = channels_, k = round_up(direct_.n, convolution().lanes);
  const double direct = pixels * 9 * c * k / 4, products = count * kWinogradProducts * c * k / 2;
  const double transforms = count * 16 * (8. * padded_ + 15 * k);
  const double weights = c * k * (keeps_ ? 64 : 150 * std::ceil(count / tiles_at_once(count)));
  return direct > 1.1 * (products + transforms + weights);
}

// One run, of which tasks take tiles by groups of vectors of outputs.
struct Winograd::Call {
  const Winograd& self;
  const Run& run;
  const Epilogue& epilogue;
  const int lanes = convolution().lanes, vectors = static_cast<int>(ceil_divide(self.direct_.n, lanes));
  const int64_t vector_bytes = int64_t{kWinogradProducts} * self.channels_ * 2 * lanes;
  const int group = group_vectors();
  const int64_t groups = ceil_divide(vectors, group), total = self.tiles(run);

  // No group reaches from one panel into the next.
  int group_vectors() const {
    int most = convolution().panel / lanes;
    while (!self.keeps_ && most > 1 && most * vector_bytes > kWeightsBytes) most /= 2;
    return std::min(most, vectors);
  }

  ptrdiff_t weights_stride(int count) const { return odd_lines<int8_t>(size_t(self.channels_) * 2 * lanes * count); }
  size_t weights_bytes(int count) const { return kWinogradProducts * weights_stride(count); }

  WinogradWeights weights(int64_t i, int8_t* data) const {
    const int first = static_cast<int>(i) * group, count = std::min(group, vectors - first);
    return {data, weights_stride(count), first * lanes, count};
  }
  WinogradWeights kept_weights(int64_t i, int8_t* kept) const { return weights(i, kept + i * weights_bytes(group)); }

  WinogradTiles tiles(int64_t first, int64_t count) const {
    return {run.x, self.border_.data(), run.height, run.width, run.out_height, run.out_width,
            ceil_divide(run.out_height, kWinogradOutputs), ceil_divide(run.out_width, kWinogradOutputs), first,
            self.channels_, self.window_.top, self.window_.left, static_cast<int>(count)};
  }

  WinogradInputs inputs(int64_t count, int slot) const {
    const ptrdiff_t stride = odd_lines<int16_t>(count * self.padded_);
    return {reinterpret_cast<int16_t*>(scratch(slot, kWinogradProducts * stride * 2)), stride, self.padded_};
  }

  void multiply(const WinogradTiles& x, const WinogradInputs& inputs, const WinogradWeights& weights) const {
    const ptrdiff_t stride = odd_lines<int32_t>(size_t(x.count) * weights.vectors * lanes);
    const WinogradSums sums{reinterpret_cast<int32_t*>(scratch(kSums, kWinogradProducts * stride * 4)), stride};
    const int32_t* offset = self.direct_.initial;
    if (run.y) winograd().to_bytes(x, inputs, weights, sums, offset, epilogue, run.y);
    else winograd().to_floats(x, inputs, weights, sums, offset, epilogue, run.y_float);
  }

  double tasks() const {
    return task_count(total * double(kWinogradProducts) * self.channels_ * self.direct_.n / 150);
  }

  void transform_weights(Buffer<int8_t>& kept) const {
    const int last = vectors - static_cast<int>(groups - 1) * group;
    kept = Buffer<int8_t>((groups - 1) * weights_bytes(group) + weights_bytes(last));
    for (int64_t i = 0; i < groups; i++)
      winograd().transform_weights(self.direct_, self.channels_, kept_weights(i, kept.data()));
  }

  // Tasks of blocks of tiles, by weights that are kept.
  void by_tiles(Context& context, int8_t* kept) const {
    const int64_t tile_bytes = kWinogradProducts * (2 * self.padded_ + 4 * lanes * group);
    const int64_t wanted = std::min<int64_t>(std::lround(tasks()), total / kLeastTiles);
    const int64_t pieces = std::clamp<int64_t>(wanted, ceil_divide(total * tile_bytes, kBlockBytes), total);
    const int64_t step = ceil_divide(total, pieces);
    context.parallel(ceil_divide(total, step), [&](size_t piece) {
      const int64_t first = static_cast<int64_t>(piece) * step;
      const WinogradTiles x = tiles(first, std::min(step, total - first));
      const WinogradInputs mine = inputs(x.count, kOwn);
      winograd().transform_inputs(x, mine);
      for (int64_t i = 0; i < groups; i++) multiply(x, mine, kept_weights(i, kept));
    });
  }

  // Tasks of groups of outputs, each of which transforms its weights; the inputs of all are transformed before.
  void by_outputs(Context& context, int64_t begin, int64_t count) const {
    const WinogradInputs shared = inputs(count, kShared);
    auto from = [&](int64_t i) {
      return WinogradInputs{shared.data + i * self.padded_, shared.stride, self.padded_};
    };
    const int64_t few = std::max<int64_t>(4, ceil_divide(count, 8));
    context.parallel(ceil_divide(count, few), [&](size_t i) {
      const int64_t first = static_cast<int64_t>(i) * few;
      winograd().transform_inputs(tiles(begin + first, std::min(few, count - first)), from(first));
    });
    const int64_t most = std::max<int64_t>(16, kBlockBytes / 2 / (kWinogradProducts * 4 * lanes * group));
    const int64_t step = ceil_divide(count, ceil_divide(count, most));
    context.parallel(groups, [&](size_t i) {
      const WinogradWeights mine = weights(i, reinterpret_cast<int8_t*>(scratch(kOwn, weights_bytes(group))));
      winograd().transform_weights(self.direct_, self.channels_, mine);
      for (int64_t first = 0; first < count; first += step)
        multiply(tiles(begin + first, std::min(step, count - first)), from(first), mine);
    });
  }
};

void Winograd::compute(Context& context, const Run& run, Epilogue epilogue) {
  epilogue.residual = run.residual;
  const Call call{*this, run, epilogue};
  if (keeps_) {
    std::call_once(transformed_, [&] { call.transform_weights(kept_); });
    return call.by_tiles(context, kept_.data());
  }
  const int64_t step = tiles_at_once(call.total);
  for (int64_t begin = 0; begin < call.total; begin += step)
    call.by_outputs(context, begin, std::min(step, call.total - begin));
}

}  // namespace oc
