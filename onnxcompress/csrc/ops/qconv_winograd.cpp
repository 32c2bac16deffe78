#include "ops/qconv_winograd.hpp"

#include <cmath>

#include "ops/rounding.hpp"
#include "ops/tasks.hpp"

namespace oc {

namespace {

constexpr int kInputsSlot = 2, kProductsSlot = 3;
constexpr int64_t kMostBytes = 2 << 20;        // of transformed weights, which take eight times their memory
constexpr int64_t kBlockBytes = 512 << 10;     // of L2, for the inputs and sums of a block of tiles
constexpr int64_t kLeastTiles = 24;            // of a block: each reads all weights
constexpr int64_t kMostSum = (1 << 25) / 255;  // of weights of one sign, so that outputs are below 2^25
constexpr int kG[6][3] = {{6, 0, 0}, {-1, -1, -1}, {-1, 1, -1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 6}};

// Values from one product's block to the next: an odd number of cache lines, so that the 36 do not share sets.
template <class T>
ptrdiff_t odd_lines(size_t values) {
  return static_cast<ptrdiff_t>(((values * sizeof(T) + 63) / 64 | 1) * 64 / sizeof(T));
}

}  // namespace

bool Winograd::suits(const Tensor& w, const Window& window, int groups) {
  if (groups != 1 || window.kh != 3 || window.kw != 3 || window.stride_h != 1 || window.stride_w != 1 ||
      window.dilation_h != 1 || window.dilation_w != 1)
    return false;
  if (w.size() / 9 * kWinogradProducts * 2 > kMostBytes) return false;
  const int64_t taps = 9 * w.dim(3);
  for (int64_t o = 0; o < w.dim(0); o++) {
    int64_t positive = 0, negative = 0;
    for (const int8_t* p = w.as<int8_t>() + o * taps; p < w.as<int8_t>() + (o + 1) * taps; p++)
      (*p > 0 ? positive : negative) += std::abs(*p);
    if (std::max(positive, negative) > kMostSum) return false;
  }
  return true;
}

Winograd::Winograd(const Tensor& w, const Window& window, uint8_t x_zero)
    : w_(w.as<int8_t>(), w.as<int8_t>() + w.size()),
      window_(window),
      outputs_(static_cast<int>(w.dim(0))),
      channels_(static_cast<int>(w.dim(3))),
      x_zero_(x_zero) {}

int64_t Winograd::tiles(const Run& run) const {
  return run.images * ceil_divide(run.out_height, kWinogradOutputs) * ceil_divide(run.out_width, kWinogradOutputs);
}

// By the number of vector products that would take as long: measured on a Zen 4.
bool Winograd::pays(const Run& run) const {
  const double pixels = double(run.images) * run.out_height * run.out_width, count = tiles(run);
  if (pixels >= 1u << 31) return false;
  const double c = round_up(channels_, winograd().words), k = round_up(outputs_, convolution().lanes);
  const double direct = pixels * 9 * round_up(channels_, 4) * k / 4;
  const double products = count * kWinogradProducts * round_up(channels_, 2) * k / 2;
  const double transforms = count * 16 * (8 * c + 15 * k), reading = 64. * channels_ * k;
  return direct > 1.1 * (products + transforms + reading);
}

// U = G w G', in the panels of the GEMM.
void Winograd::transform_weights() {
  const int k = round_up(channels_, 2), padded = round_up(outputs_, convolution().lanes);
  Buffer<int16_t> transformed(static_cast<size_t>(outputs_) * kWinogradProducts * k);
  zeros_ = Buffer<int32_t>(padded), offset_ = Buffer<int32_t>(padded);
  border_ = Buffer<uint8_t>(channels_);
  std::memset(border_.data(), x_zero_, channels_);
  for (int o = 0; o < outputs_; o++)
    for (int c = 0; c < channels_; c++) {
      const int8_t* w = w_.data() + static_cast<size_t>(o) * 9 * channels_ + c;
      int half[6][3] = {};
      for (int i = 0; i < 6; i++)
        for (int x = 0; x < 3; x++)
          for (int y = 0; y < 3; y++) half[i][x] += kG[i][y] * w[(y * 3 + x) * channels_];
      for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
          int value = 0;
          for (int x = 0; x < 3; x++) value += kG[j][x] * half[i][x];
          transformed[(static_cast<size_t>(o) * kWinogradProducts + i * 6 + j) * k + c] = static_cast<int16_t>(value);
        }
      for (int t = 0; t < 9; t++) offset_[o] -= w[t * channels_] * x_zero_;
    }
  data_ = Buffer<int8_t>(static_cast<size_t>(padded) * kWinogradProducts * k * 2);
  convolution().pack(reinterpret_cast<const int8_t*>(transformed.data()), outputs_, kWinogradProducts, 2 * k, 2 * k,
                     data_.data());
  w_ = {};
}

void Winograd::compute(Context& context, const Run& run, Epilogue epilogue) {
  epilogue.residual = run.residual;
  std::call_once(transformed_, [&] { transform_weights(); });
  const int k = round_up(channels_, 2), channels = round_up(channels_, winograd().words);
  const int panel = std::min(convolution().panel, round_up(outputs_, convolution().lanes));
  const WinogradWeights weights{{{data_.data(), zeros_.data(), outputs_, 2 * k, kWinogradProducts}}, offset_.data()};
  const int64_t total = tiles(run), tile_bytes = kWinogradProducts * (2 * channels + 4 * panel);
  const double nanoseconds = total * double(kWinogradProducts) * channels * outputs_ / 150;
  const int64_t wanted = std::min<int64_t>(std::lround(task_count(nanoseconds)), total / kLeastTiles);
  const int64_t pieces = std::clamp<int64_t>(wanted, ceil_divide(total * tile_bytes, kBlockBytes), total);
  const int64_t step = ceil_divide(total, pieces);
  context.parallel(ceil_divide(total, step), [&](size_t piece) {
    WinogradTiles x{run.x, border_.data(), run.height, run.width, run.out_height, run.out_width,
                    ceil_divide(run.out_height, kWinogradOutputs), ceil_divide(run.out_width, kWinogradOutputs),
                    static_cast<int64_t>(piece) * step, channels_, window_.top, window_.left, 0};
    x.count = static_cast<int>(std::min(step, total - x.first));
    WinogradScratch mine{nullptr, nullptr, odd_lines<int16_t>(size_t(x.count) * channels),
                         odd_lines<int32_t>(size_t(x.count) * panel), channels};
    mine.inputs = reinterpret_cast<int16_t*>(scratch(kInputsSlot, kWinogradProducts * mine.inputs_stride * 2));
    mine.products = reinterpret_cast<int32_t*>(scratch(kProductsSlot, kWinogradProducts * mine.products_stride * 4));
    if (run.y) winograd().to_bytes(x, weights, mine, epilogue, run.y);
    else winograd().to_floats(x, weights, mine, epilogue, run.y_float);
  });
}

}  // namespace oc
