// Linear layers and layer normalizations that the library takes.
#include <algorithm>

#include "node.hpp"

namespace oc::fuzz {

namespace {

const char* const kActivations[] = {"", "relu", "gelu", "gelu_tanh", "silu", "hardswish"};

struct X {
  Shape rows;  // the leading dimensions
  int64_t k;
};

// x with its parameters: bytes, floats, or bytes with parameters for each row.
X activations(Builder& b, int64_t k) {
  Shape rows = b.source.pick<Shape>({{3}, {2, 5}, {}, {1}, {0}, {17}, {1, 1, 2}, {40}, {97}, {6}, {600}});
  Shape shape = rows, one = rows;
  shape.push_back(k), one.push_back(1);
  switch (b.source.pick({0, 0, 1, 2})) {
    case 0: b.bytes(shape), b.parameters(); break;
    case 1: b.floats(shape, -2, 2, Given::kComputed), b.parameters(); break;
    default: b.bytes(shape), b.floats(one, 0.005f, 0.05f, Given::kComputed), b.bytes(one);
  }
  return {rows, k};
}

Shape with(const Shape& rows, int64_t last) {
  Shape shape = rows;
  shape.push_back(last);
  return shape;
}

void scale_and_bias(Builder& b, int64_t n) {
  b.floats(b.flip() ? Shape{} : Shape{n}, 1e-4f, 1e-2f);
  b.flip() ? b.absent() : b.floats({n}, -1, 1);
}

void residual(Builder& b, const Shape& rows, int64_t n) {
  b.flip() ? b.floats(with(rows, n), -1, 1, Given::kComputed) : b.absent();
}

// y_scale and y_zero_point; whether they are given.
bool quantized(Builder& b, int64_t n) {
  if (b.flip()) {
    b.absent(), b.absent();
    return false;
  }
  b.floats(b.flip() ? Shape{n} : Shape{}, 1e-3f, 0.1f), b.bytes({}, Given::kConstant);
  return true;
}

void outputs(Builder& b, bool to_bytes, bool dynamic) {
  b.node.attributes["dynamic"] = int64_t{dynamic};
  b.node.outputs = {to_bytes || dynamic, !to_bytes && !dynamic};
  if (dynamic) b.node.outputs = {true, false, true, true};
}

void activation(Builder& b) { b.node.attributes["activation"] = std::string(kActivations[b.source.below(6)]); }

void qlinear(Builder& b) {
  const int64_t n = b.size(260), k = b.size(130);
  const X x = activations(b, k);
  b.weights({n, k}), scale_and_bias(b, n), residual(b, x.rows, n);
  const bool to_bytes = quantized(b, n);
  b.table(b.flip());
  activation(b), outputs(b, to_bytes, b.source.rarely(3));
}

void qlinear4(Builder& b) {
  const int64_t n = b.size(130), block = b.source.pick<int64_t>({32, 36, 64, 40}), blocks = 1 + b.source.below(4);
  const X x = activations(b, block * blocks);
  b.bytes({n, block * blocks / 2}, Given::kConstant), b.floats({n, blocks}, 0.001f, 0.02f);
  b.flip() ? b.floats({n}, -1, 1) : b.absent();
  residual(b, x.rows, n);
  const bool to_bytes = quantized(b, n);
  b.node.attributes["block_size"] = block;
  activation(b);
  b.node.outputs = {to_bytes, !to_bytes};
}

void weightonlylinear(Builder& b) {
  const int64_t rows = b.size(130), k = b.size(260), bits = b.source.pick<int64_t>({4, 8});
  const int64_t block = b.source.pick<int64_t>({32, 0, 64, 128}), blocks = block ? (k + block - 1) / block : 1;
  const bool gated = b.flip();
  const int64_t n = gated ? 2 * rows : rows;
  const Shape lead = b.source.pick<Shape>({{3}, {2, 5}, {}, {1}, {0}, {17}, {1, 1, 2}, {40}, {97}, {6}, {300}});
  b.floats(with(lead, k), -2, 2, Given::kComputed);
  b.bytes({n, bits == 4 ? (k + 1) / 2 : k}, Given::kConstant), b.floats({n, blocks}, -0.02f, 0.02f);
  if (b.flip()) {
    b.whole(ElementType::kUint8, std::vector<int64_t>(n * blocks, b.source.below(16)), {n, blocks}, Given::kConstant);
  } else {
    b.absent();
  }
  b.flip() ? b.floats({n}, -1, 1) : b.absent();
  residual(b, lead, rows);
  b.node.attributes["bits"] = bits, b.node.attributes["block_size"] = block;
  b.node.attributes["gated"] = int64_t{gated};
  activation(b);
}

// Constants of weights [n, k] of which about half of the blocks are there.
void blocks(Builder& b, int64_t n, int64_t k) {
  const int64_t block = b.source.pick<int64_t>({4, 1, 16}), groups = (n + block - 1) / block;
  const int64_t missing = b.source.below(5);  // of four blocks, on average
  std::vector<int64_t> start = {0}, column;
  for (int64_t g = 0; g < groups; g++) {
    for (int64_t c = 0; c < (k + 3) / 4; c++)
      if (static_cast<int64_t>(b.random.below(4)) >= missing) column.push_back(c);
    start.push_back(static_cast<int64_t>(column.size()));
  }
  const auto count = static_cast<int64_t>(column.size());
  b.weights({count, block, 4});
  b.whole(ElementType::kInt32, start, {groups + 1}, Given::kConstant);
  b.whole(ElementType::kInt32, column, {count}, Given::kConstant);
  b.floats({n}, 1e-4f, 1e-2f);
  b.flip() ? b.absent() : b.floats({n}, -1, 1);
}

void qsparselinear(Builder& b) {
  const int64_t n = b.size(130), k = b.size(130);
  const X x = activations(b, k);
  blocks(b, n, k), residual(b, x.rows, n);
  const bool to_bytes = quantized(b, n);
  b.table(b.flip());
  b.node.attributes["in_features"] = k;
  activation(b), outputs(b, to_bytes, b.source.rarely(3));
}

void qsparseconv(Builder& b) {
  const int64_t c = b.size(33), n = b.size(70), h = 1 + b.source.below(13), w = 1 + b.source.below(13);
  const int64_t kh = 1 + b.source.below(std::min<int64_t>(h, 3)), kw = 1 + b.source.below(std::min<int64_t>(w, 3));
  b.bytes({b.source.pick<int64_t>({1, 2, 0}), h, w, c}), b.parameters();
  blocks(b, n, kh * kw * c);
  const bool to_bytes = quantized(b, n);
  b.table(b.flip());
  b.node.attributes = {{"kernel_shape", Ints{kh, kw}}, {"in_channels", c}};
  b.node.attributes["strides"] = b.source.pick<Ints>({{1, 1}, {2, 2}, {1, 3}, {4, 1}});
  b.node.attributes["pads"] = b.source.pick<Ints>({{0, 0, 0, 0}, {1, 1, 1, 1}, {3, 0, 1, 5}, {2, 4, 4, 2}});
  if (b.source.rarely(4))
    b.node.attributes["dilations"] = Ints{kh == 1 ? 1 : (h - 1) / (kh - 1), kw == 1 ? 1 : (w - 1) / (kw - 1)};
  b.node.outputs = {to_bytes, !to_bytes};
}

// gamma, beta, q_scale and q_zero_point of c columns, and the outputs y, q, row_scale, row_zero_point, sum.
void normalization(Builder& b, int64_t c) {
  b.floats({c}, 0.5f, 1.5f), b.flip() ? b.absent() : b.floats({c}, -1, 1);
  const bool given = quantized(b, c), dynamic = b.source.rarely(3), q = dynamic || (given && b.flip());
  b.node.attributes["dynamic"] = int64_t{dynamic};
  b.node.outputs = {!q || b.flip(), q, dynamic, dynamic, b.flip()};
}

void qlayernorm(Builder& b) {
  const int64_t c = b.size(260);
  const Shape rows = b.source.pick<Shape>({{3}, {2, 5}, {}, {0}, {17}, {1, 1, 2}});
  b.floats(with(rows, c), -2, 2, Given::kComputed), residual(b, rows, c);
  normalization(b, c);
}

void qlinearlayernorm(Builder& b) {
  const int64_t n = b.size(260), k = b.size(130);
  const X x = activations(b, k);
  b.weights({n, k}), scale_and_bias(b, n), residual(b, x.rows, n);
  normalization(b, n);
}

void qsparselinearlayernorm(Builder& b) {
  const int64_t n = b.size(260), k = b.size(130);
  const X x = activations(b, k);
  blocks(b, n, k), residual(b, x.rows, n);
  b.node.attributes["in_features"] = k;
  normalization(b, n);
}

}  // namespace

const std::map<std::string, Describe>& linear_operators() {
  static const std::map<std::string, Describe> all = {
      {"QLinear", qlinear},       {"QLinear4", qlinear4},
      {"QLayerNorm", qlayernorm}, {"QSparseLinear", qsparselinear},
      {"QSparseConv", qsparseconv}, {"QLinearLayerNorm", qlinearlayernorm},
      {"QSparseLinearLayerNorm", qsparselinearlayernorm},
      {"WeightOnlyLinear", weightonlylinear}};
  return all;
}

}  // namespace oc::fuzz
