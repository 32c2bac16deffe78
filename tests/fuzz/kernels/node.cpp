#include "node.hpp"

#include <algorithm>
#include <stdexcept>

namespace oc::fuzz {

size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kFloat: case ElementType::kInt32: return 4;
    case ElementType::kInt64: case kDouble: return 8;
    case ElementType::kFloat16: return 2;
    case kString: return sizeof(std::string);
    default: return 1;
  }
}

bool countable(const Shape& shape, int64_t* count) {
  *count = 1;
  for (int64_t d : shape)
    if (d < 0 || __builtin_mul_overflow(*count, d, count)) return false;
  return true;
}

bool Input::reshape(const Shape& wanted) {
  int64_t count = 0;
  if (!countable(wanted, &count) || count > static_cast<int64_t>(kMostBytes / element_bytes(type))) return false;
  const size_t before = content.size(), bytes = count * element_bytes(type);
  content.resize(bytes);
  for (size_t i = before; i < bytes; i++) content[i] = before ? content[i - before] : 0;
  shape = wanted;
  return true;
}

int64_t Builder::size(int64_t most) {
  constexpr int64_t kSizes[] = {1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 17, 24, 31, 32, 33, 40, 48, 64, 65, 70, 100, 130, 260};
  const auto* end = std::upper_bound(std::begin(kSizes), std::end(kSizes), most);
  return kSizes[source.below(end - kSizes)];
}

Input& Builder::integers(ElementType type, const Shape& shape, Given given) {
  Input& input = node.inputs.emplace_back(Input{given, type, {}, {}});
  if (!input.reshape(shape)) throw std::logic_error("a description is too large: " + node.op);
  for (auto& byte : input.content) byte = static_cast<uint8_t>(random());
  return input;
}

Input& Builder::floats(const Shape& shape, float low, float high, Given given) {
  Input& input = integers(ElementType::kFloat, shape, given);
  for (size_t i = 0; i < input.content.size(); i += sizeof(float)) {
    const float value = random.uniform(low, high);
    std::memcpy(&input.content[i], &value, sizeof(float));
  }
  return input;
}

Input& Builder::whole(ElementType type, const std::vector<int64_t>& values, const Shape& shape, Given given) {
  Input& input = integers(type, shape, given);
  const size_t size = element_bytes(type);
  for (size_t i = 0; i < values.size(); i++) {
    if (type == ElementType::kFloat) {
      const float value = static_cast<float>(values[i]);
      std::memcpy(&input.content[i * size], &value, size);
    } else {
      std::memcpy(&input.content[i * size], &values[i], size);  // the low bytes
    }
  }
  return input;
}

void Builder::parameters(bool given) {
  if (!given) {
    absent(), absent();
    return;
  }
  floats({}, 0.005f, 0.05f), bytes({}, Given::kConstant);
}

Node describe(const std::string& op, Source& source) {
  for (const auto* operators : {&linear_operators(), &image_operators(), &token_operators()})
    if (const auto found = operators->find(op); found != operators->end()) {
      Builder builder(source, op.c_str());
      found->second(builder);
      return builder.node;
    }
  throw std::out_of_range("no description of " + op);
}

}  // namespace oc::fuzz
