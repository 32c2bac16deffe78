// A node of a model, as a description that can be altered before the library sees it.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "ort/abi.hpp"
#include "source.hpp"

namespace oc::fuzz {

using ort::ElementType;
using Shape = std::vector<int64_t>;
using Ints = std::vector<int64_t>;
using Attribute = std::variant<int64_t, float, std::string, Ints>;

constexpr ElementType kString = static_cast<ElementType>(8), kDouble = static_cast<ElementType>(11),
                      kInt4 = static_cast<ElementType>(22);
constexpr size_t kMostBytes = 1 << 20;  // of one tensor

size_t element_bytes(ElementType type);
// Whether the runtime could hold such a tensor: no product of dimensions, in order, leaves int64. `count`: the product.
bool countable(const Shape& shape, int64_t* count);

enum class Given { kAbsent, kConstant, kComputed };

struct Input {
  Given given = Given::kAbsent;
  ElementType type = ElementType::kUndefined;
  Shape shape;
  std::vector<uint8_t> content;

  // Another shape; the contents are repeated or cut. False, and nothing changes, where no tensor is that large.
  bool reshape(const Shape& wanted);
};

struct Node {
  std::string op;
  std::map<std::string, Attribute> attributes;
  std::vector<Input> inputs;
  std::vector<bool> outputs;  // which are asked for
  bool trailing = false;      // absent inputs and outputs at the end are given as empty names
};

// Builds inputs of a node that is right.
class Builder {
 public:
  Builder(Source& source, const char* op) : source(source), random(source.word()) { node.op = op; }

  // A size of an axis, at most `most`.
  int64_t size(int64_t most);
  bool flip() { return source.flip(); }

  Input& absent() { return node.inputs.emplace_back(); }
  Input& bytes(const Shape& shape, Given given = Given::kComputed) {
    return integers(ElementType::kUint8, shape, given);
  }
  Input& weights(const Shape& shape) { return integers(ElementType::kInt8, shape, Given::kConstant); }
  Input& floats(const Shape& shape, float low, float high, Given given = Given::kConstant);
  Input& whole(ElementType type, const std::vector<int64_t>& values, const Shape& shape, Given given);
  // A scale and a zero point of one value; or neither.
  void parameters(bool given = true);
  // A constant table of 256 bytes, or none.
  void table(bool given) { given ? bytes({256}, Given::kConstant) : absent(); }

  Source& source;
  Random random;
  Node node;

 private:
  Input& integers(ElementType type, const Shape& shape, Given given);
};

// A node that the library takes, of an operator of this name. Throws std::out_of_range where there is no description.
Node describe(const std::string& op, Source& source);

// Changes a node in a few places. `computed`: only shapes and contents of inputs that are computed, as between runs.
void alter(Node& node, Source& source, bool computed);

// An operator's own descriptions, by its name; in describe_*.cpp.
using Describe = void (*)(Builder&);
const std::map<std::string, Describe>& linear_operators();
const std::map<std::string, Describe>& image_operators();
const std::map<std::string, Describe>& token_operators();

}  // namespace oc::fuzz
