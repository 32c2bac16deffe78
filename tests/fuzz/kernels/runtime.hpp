// A stand-in for ONNX Runtime, of which the library can have exactly what it calls.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "node.hpp"

namespace oc::fuzz {

// The operators that the library registers with it, by name.
const std::map<std::string, const ort::OrtCustomOp*>& operators();

// Makes the types of a node's inputs those of the operator's ports, as the runtime does before it makes a kernel; also
// outputs that the operator has not. False where no model with this node could be opened.
bool legal(Node& node, const ort::OrtCustomOp& op);

// Bytes of all outputs of one run.
using Results = std::vector<std::vector<uint8_t>>;

enum class Outcome { kDone, kRefused, kNoMemory };

// A kernel that the library made for a node, and what the runtime holds for it.
class Session {
 public:
  Session(const ort::OrtCustomOp& op, const Node& node);
  ~Session();
  Session(const Session&) = delete;

  // Whether the library made the kernel.
  bool made() const { return kernel_ != nullptr; }
  // One run on the computed inputs of `node`. `fill`: what memory of outputs holds before; `backwards`: parallel work
  // is done from its end. Aborts where the library writes to an input.
  Outcome run(const Node& node, uint8_t fill, bool backwards, Results* results);

 private:
  struct Held;
  const ort::OrtCustomOp& op_;
  Held* held_;
  void* kernel_ = nullptr;
};

}  // namespace oc::fuzz
