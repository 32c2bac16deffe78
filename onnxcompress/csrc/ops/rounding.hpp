// Quotients and multiples, rounded up; for values that are not negative.
#pragma once

#include <cstdint>

namespace oc {

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int round_up(int value, int step) { return (value + step - 1) / step * step; }

}  // namespace oc
