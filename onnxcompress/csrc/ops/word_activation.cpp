#include "ops/word_activation.hpp"

#include <algorithm>
#include <cmath>

#include "ops/activation.hpp"

namespace oc {

namespace {

constexpr double kMostError = 0.05;  // of a step
constexpr int kPoints = WordActivation::kPoints, kOne = 1 << WordActivation::kFraction, kMostWord = 32767;

double hardswish(double x) { return x * std::clamp(x / 6 + 0.5, 0., 1.); }

using Function = double (*)(double);

Function function_of(const std::string& name) {
  if (name == "gelu") return gelu;
  if (name == "gelu_tanh") return gelu_tanh;
  if (name == "silu") return silu;
  if (name == "hardswish") return hardswish;
  return nullptr;
}

// What the kernels compute of a word, in words, less the zero point and one half.
int correction(const WordActivation& table, int word, int base) {
  const int point = std::min(word >> table.shift, kPoints - 1);
  const int fraction = (word << (15 - table.shift)) & kMostWord;
  return table.value[point] - base + ((table.slope[point] * fraction + (1 << 14)) >> 15);
}

}  // namespace

std::unique_ptr<WordActivation> make_word_activation(const std::string& name, double step, int zero_point) {
  const Function f = function_of(name);
  if (!f || !(step > 1e-6 && step < 1e6)) return nullptr;
  // c at a word's |x|, in words; from the negative side, where f is c itself.
  auto exact = [&](double word) { return f(-word / kOne * step) / step * kOne; };
  const int base = zero_point * kOne + kOne / 2;
  for (int shift = 5; shift <= 9; shift++) {
    if (shift < 9 && std::abs(exact((kPoints - 1) << shift)) > kMostError / 4 * kOne) continue;
    auto table = std::make_unique<WordActivation>();
    table->shift = shift;
    for (int i = 0; i < kPoints; i++) {
      const bool last = i == kPoints - 1 && shift < 9;
      const int begin = last ? 0 : static_cast<int>(std::lround(exact(i << shift)));
      const int end = last ? 0 : static_cast<int>(std::lround(exact((i + 1) << shift)));
      if (std::abs(begin) + base > kMostWord) return nullptr;
      table->value[i] = static_cast<int16_t>(begin + base), table->slope[i] = static_cast<int16_t>(end - begin);
    }
    double worst = std::abs(exact(kMostWord + 1));  // whatever lies beyond the words
    for (int word = 0; word <= kMostWord; word++)
      worst = std::max(worst, std::abs(correction(*table, word, base) - exact(word)));
    return worst <= kMostError * kOne ? std::move(table) : nullptr;
  }
  return nullptr;
}

}  // namespace oc
