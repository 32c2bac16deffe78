// Operators on tokens that the library takes.
#include "node.hpp"

namespace oc::fuzz {

namespace {

constexpr ElementType kI32 = ElementType::kInt32, kI64 = ElementType::kInt64, kF32 = ElementType::kFloat,
                      kBool = ElementType::kBool;

// [batch, length] numbers below `limit`.
void numbers(Builder& b, ElementType type, const Shape& shape, int64_t limit) {
  int64_t count = 1;
  for (int64_t d : shape) count *= d;
  std::vector<int64_t> values;
  for (int64_t i = 0; i < count; i++) values.push_back(static_cast<int64_t>(b.random.below(limit)));
  b.whole(type, values, shape, Given::kComputed);
}

void embedlayernorm(Builder& b) {
  const int64_t words = b.size(64), c = b.size(130), positions = b.size(40);
  const int64_t batch = b.source.pick<int64_t>({1, 2, 5, 0}), length = 1 + b.source.below(positions);
  const ElementType type = b.source.pick({kI64, kI32});
  const Shape ids = {batch, length};
  numbers(b, type, ids, words);
  b.weights({words, c}), b.floats({words}, 1e-3f, 1e-2f);
  if (b.flip()) b.absent(), b.absent();
  else numbers(b, b.source.pick({kI64, kI32}), ids, 2), b.floats({2, c}, -1, 1);
  const int kind = b.source.pick({0, 1, 2});  // positions: none, floats, bytes
  if (kind == 0) b.absent();
  else if (kind == 1) b.floats({positions, c}, -1, 1);
  else b.weights({positions, c});
  switch (kind ? b.source.below(4) : 0) {
    case 1: numbers(b, kI64, {length}, positions); break;
    case 2: numbers(b, kI32, {1, length}, positions); break;
    case 3: numbers(b, kI32, ids, positions); break;
    default: b.absent();
  }
  b.floats({c}, 0.5f, 1.5f), b.floats({c}, -1, 1);
  const bool dynamic = b.source.rarely(3), scale = dynamic ? b.flip() : !b.flip();
  if (scale) b.floats(b.flip() ? Shape{c} : Shape{}, 0.01f, 0.1f);
  else b.absent();
  b.flip() ? b.absent() : b.bytes({}, Given::kConstant);
  if (kind == 2) b.floats({positions}, 1e-3f, 1e-2f);
  else b.absent();
  b.node.attributes["dynamic"] = int64_t{dynamic};
  b.node.attributes["position_offset"] = kind ? static_cast<int64_t>(b.random.below(positions - length + 1)) : 0;
  b.node.outputs = {!scale || b.flip(), scale};
  if (dynamic) b.node.outputs = {b.flip(), true, b.flip(), b.flip()};
}

void meanpool(Builder& b) {
  const int64_t batch = b.source.pick<int64_t>({1, 2, 3, 0}), length = b.size(40), c = b.size(130);
  b.floats({batch, length, c}, -2, 2, Given::kComputed);
  numbers(b, b.source.pick({kI64, kI32, kF32, kBool}), {batch, length}, 2);
  b.node.attributes["normalize"] = int64_t{b.flip()};
}

void qattention(Builder& b) {
  const int64_t heads = b.source.pick<int64_t>({1, 2, 3, 5}), size = b.size(48), keys = b.size(130);
  const int64_t batch = keys * heads * size > 2000 ? 1 : b.source.pick<int64_t>({1, 2, 0});
  b.bytes({batch, keys, 3 * heads * size});
  b.floats({heads}, 0.01f, 0.1f), b.floats({heads}, 0.01f, 0.1f), b.floats({heads * size}, 0.01f, 0.1f);
  const int kind = b.source.pick({0, 1, 2, 3});
  if (kind == 0) b.absent();
  else if (kind == 1) numbers(b, b.source.pick({kI64, kI32, kF32, kBool}), {batch, keys}, 2);
  else if (kind == 2) b.floats({b.flip() ? 1 : batch, b.flip() ? 1 : heads, 1, keys}, -9, 1, Given::kComputed);
  else b.floats({1, keys <= 64 && b.flip() ? heads : 1, keys, keys}, -9, 1, Given::kComputed);
  b.parameters();
  b.node.attributes = {{"num_heads", heads}, {"mask_kind", std::string(kind < 2 ? "keep" : "add")}};
}

}  // namespace

const std::map<std::string, Describe>& token_operators() {
  static const std::map<std::string, Describe> all = {
      {"EmbedLayerNorm", embedlayernorm}, {"MeanPool", meanpool}, {"QAttention", qattention}};
  return all;
}

}  // namespace oc::fuzz
