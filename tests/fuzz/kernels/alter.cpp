// What a hostile model may say that a right one does not.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "node.hpp"

namespace oc::fuzz {

namespace {

constexpr int64_t kMin64 = std::numeric_limits<int64_t>::min(), kMax64 = std::numeric_limits<int64_t>::max();
constexpr int64_t kMax32 = std::numeric_limits<int32_t>::max();

// Where sums, products and conversions to narrower types go wrong.
int64_t edge(Source& s, int64_t now) {
  constexpr int64_t one = 1;
  constexpr int64_t edges[] = {
      0, -1, 1, 2, 3, 4, 5, 16, 255, 256, 1024, 4096, 65535, 65536, 65537, 1 << 20, 1 << 23, 1 << 24, (1 << 24) - 1,
      1 << 30, kMax32, kMax32 + 1, -kMax32 - 1, one << 32, (one << 32) + 1, one << 40, one << 61, one << 62, kMin64,
      kMax64};
  switch (s.below(4)) {
    case 0: return edges[s.below(std::size(edges))];
    case 1: return s.flip() ? now + (now < kMax64) : now - (now > kMin64);
    case 2: return now > kMax64 / 2 || now < kMin64 / 2 ? now : now * 2;
    default: return static_cast<int8_t>(s.byte());
  }
}

float float_edge(Source& s) {
  return s.pick({0.f, -0.f, 1.f, -1.f, NAN, INFINITY, -INFINITY, FLT_MIN, FLT_MIN / 2, FLT_MAX, -FLT_MAX, 1e-30f, 1e30f,
                 65536.f, 1e-6f, 3e9f});
}

Attribute other_attribute(Source& s) {
  switch (s.below(4)) {
    case 0: return edge(s, 1);
    case 1: return float_edge(s);
    case 2:
      return std::string(s.pick({"", "relu", "gelu", "gelu_tanh", "silu", "hardswish", "NCHW", "NHWC", "max", "average",
                                 "global_average", "keep", "add", "sub", "mul", "sigmoid", "hardsigmoid", "no such"})) +
             (s.rarely(8) ? std::string(300, '\0') : "");
    default: {
      Ints values(s.below(7));
      for (auto& value : values) value = edge(s, 1);
      return values;
    }
  }
}

void alter_ints(Ints& values, Source& s) {
  switch (s.below(6)) {
    case 0: values.push_back(edge(s, 1)); break;
    case 1: if (!values.empty()) values.pop_back(); break;
    default:
      if (!values.empty()) {
        int64_t& value = values[s.below(values.size())];
        value = edge(s, value);
      }
  }
}

void alter_attribute(Node& node, Source& s) {
  static const char* const kNames[] = {"activation", "dynamic", "epsilon", "block_size", "in_features", "in_channels",
      "group", "strides", "pads", "dilations", "kernel_shape", "x_layout", "y_layout", "residual_after",
      "output_padding", "mode", "ceil_mode", "count_include_pad", "upsample", "identity", "scales", "operation", "gate",
      "alpha", "beta", "residual", "position_offset", "normalize", "minimum_count", "norm_epsilon", "num_heads",
      "mask_kind", "scale"};
  if (node.attributes.empty() || s.rarely(4)) {
    node.attributes[kNames[s.below(std::size(kNames))]] = other_attribute(s);
    return;
  }
  auto at = std::next(node.attributes.begin(), static_cast<ptrdiff_t>(s.below(node.attributes.size())));
  switch (s.below(8)) {
    case 6: node.attributes.erase(at); return;
    case 7: at->second = other_attribute(s); return;
    default:
      if (auto* number = std::get_if<int64_t>(&at->second)) *number = edge(s, *number);
      else if (auto* values = std::get_if<Ints>(&at->second)) alter_ints(*values, s);
      else at->second = other_attribute(s);
  }
}

void alter_shape(Input& input, Source& s) {
  Shape shape = input.shape;
  const size_t axis = s.below(shape.size());
  switch (s.below(7)) {
    case 0: shape.insert(shape.begin() + static_cast<ptrdiff_t>(axis), s.pick<int64_t>({1, 0, 2})); break;
    case 1: if (!shape.empty()) shape.erase(shape.begin() + static_cast<ptrdiff_t>(axis)); break;
    case 2: if (shape.size() > 1) std::swap(shape[axis], shape[s.below(shape.size())]); break;
    case 3:  // nothing in it, but a size that no memory holds
      if (shape.size() > 1) {
        const size_t other = s.below(shape.size()), empty = other == axis ? (axis + 1) % shape.size() : other;
        shape[axis] = std::max<int64_t>(0, edge(s, shape[axis])), shape[empty] = 0;
      }
      break;
    case 4: if (!shape.empty()) shape[axis] = std::max<int64_t>(0, edge(s, shape[axis])); break;
    case 5: if (!shape.empty()) shape[axis] = static_cast<int64_t>(s.below(300)); break;
    default:
      if (shape.empty()) break;
      if (!s.flip() && shape[axis] < kMax64) shape[axis]++;
      else if (shape[axis] > 0) shape[axis]--;
  }
  input.reshape(shape);  // where it is refused, the old one stays
}

template <class T>
void poke(Input& input, size_t at, T value) {
  std::memcpy(&input.content[at * sizeof(T)], &value, sizeof(T));
}

void poke_edge(Input& input, size_t at, Source& s) {
  switch (input.type) {
    case ElementType::kFloat: return poke(input, at, float_edge(s));
    case ElementType::kInt64: {
      int64_t now;
      std::memcpy(&now, &input.content[at * 8], 8);
      return poke(input, at, edge(s, now));
    }
    case ElementType::kInt32: {
      int32_t now;
      std::memcpy(&now, &input.content[at * 4], 4);
      return poke(input, at, static_cast<int32_t>(edge(s, now)));
    }
    default: poke(input, at, s.pick<uint8_t>({0, 255, 127, 128, 1}));
  }
}

void alter_content(Input& input, Source& s) {
  const size_t size = element_bytes(input.type), count = input.content.size() / size;
  if (!count || size == sizeof(std::string)) return;
  const size_t at = s.below(count);
  switch (s.below(4)) {
    case 0:  // all of them the same
      poke_edge(input, at, s);
      for (size_t i = 0; i < count; i++)
        if (i != at) std::memcpy(&input.content[i * size], &input.content[at * size], size);
      return;
    case 1: {
      uint8_t *one = &input.content[at * size], *other = &input.content[s.below(count) * size];
      if (one != other) std::swap_ranges(one, one + size, other);
      return;
    }
    default: poke_edge(input, at, s);
  }
}

void alter_input(Node& node, Source& s, bool computed) {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < node.inputs.size(); i++)
    if (!computed || node.inputs[i].given == Given::kComputed) chosen.push_back(i);
  if (chosen.empty()) return;
  const size_t index = chosen[s.below(chosen.size())];
  Input& input = node.inputs[index];
  if (input.given != Given::kAbsent && !s.rarely(8)) return s.flip() ? alter_content(input, s) : alter_shape(input, s);
  if (computed) return alter_shape(input, s);
  switch (s.below(5)) {
    case 0: input.given = Given::kAbsent; break;
    case 1: input.given = input.given == Given::kConstant ? Given::kComputed : Given::kConstant; break;
    case 2: {  // that of another input: types are made right afterwards, but for ports that take any
      const Input other = node.inputs[s.below(node.inputs.size())];
      const Given given = input.given;
      input = other, input.given = given == Given::kAbsent ? Given::kConstant : given;
      break;
    }
    case 3: {
      input.type = s.pick({ElementType::kFloat, ElementType::kUint8, ElementType::kInt8, ElementType::kInt32,
                           ElementType::kInt64, ElementType::kBool, ElementType::kFloat16, kString, kDouble, kInt4});
      if (!input.reshape(input.shape)) input.reshape({});
      break;
    }
    default:
      if (s.flip() && node.inputs.size() > 1) node.inputs.pop_back();
      else node.inputs.push_back(Input(node.inputs.back()));
  }
}

}  // namespace

void alter(Node& node, Source& source, bool computed) {
  if (computed) return alter_input(node, source, true);
  switch (source.below(8)) {
    case 5: case 6: return alter_attribute(node, source);
    case 7:
      if (source.flip()) node.trailing = !node.trailing;
      else if (!node.outputs.empty()) node.outputs[source.below(node.outputs.size())].flip();
      return;
    default: alter_input(node, source, false);
  }
}

}  // namespace oc::fuzz
