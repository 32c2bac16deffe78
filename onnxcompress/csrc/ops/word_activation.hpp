// Tables of cpu/sparse_words.hpp.
#pragma once

#include <memory>
#include <string>

#include "cpu/sparse_words.hpp"

namespace oc {

// The table for an activation whose results are quantized with this step and zero point; null where it would be wrong
// by more than a twentieth of a step somewhere, or is not of that kind.
std::unique_ptr<WordActivation> make_word_activation(const std::string& name, double step, int zero_point);

}  // namespace oc
