// Operators on images that the library takes.
#include <algorithm>

#include "node.hpp"

namespace oc::fuzz {

namespace {

Shape image(Builder& b, int64_t most_channels) {
  const int64_t n = b.source.pick<int64_t>({1, 2, 3, 0}), h = 1 + b.source.below(13), w = 1 + b.source.below(17);
  return {n, h, w, b.size(most_channels)};
}

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t pads) {
  const int64_t room = size + pads - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

struct Geometry {
  int64_t kh, kw;
  Ints strides, pads, dilations;
};

// A window that fits an image of this size.
Geometry geometry(Builder& b, int64_t h, int64_t w) {
  Geometry g;
  g.kh = 1 + b.source.below(std::min<int64_t>(h, 5)), g.kw = 1 + b.source.below(std::min<int64_t>(w, 5));
  g.strides = b.source.pick<Ints>({{1, 1}, {2, 2}, {1, 3}, {5, 1}});
  g.pads = b.source.pick<Ints>({{0, 0, 0, 0}, {1, 1, 1, 1}, {3, 0, 1, 5}, {0, 7, 7, 0}});
  g.dilations = {1, 1};
  if (b.source.rarely(4)) g.dilations = {g.kh == 1 ? 1 : (h - 1) / (g.kh - 1), g.kw == 1 ? 1 : (w - 1) / (g.kw - 1)};
  return g;
}

void scale_and_bias(Builder& b, int64_t m) {
  b.floats(b.flip() ? Shape{} : Shape{m}, 1e-4f, 1e-2f);
  b.flip() ? b.absent() : b.floats({m}, -1, 1);
}

void qconv(Builder& b) {
  const Shape x = image(b, 48);
  const int64_t h = x[1], w = x[2], c = x[3];
  const Geometry g = geometry(b, h, w);
  const int64_t group = b.source.pick<int64_t>({1, 1, c, c % 2 ? 1 : 2, c % 3 ? 1 : 3}), each = c / group;
  const int64_t m = group == 1 ? b.size(130) : group * b.source.pick<int64_t>({1, 1, 2, 5});
  const bool planes = b.source.rarely(3);
  if (planes) b.floats({x[0], c, h, w}, -2, 2, Given::kComputed);
  else b.bytes(x);
  b.parameters(), b.weights({m, g.kh, g.kw, each}), scale_and_bias(b, m);
  const bool to_bytes = !b.source.rarely(3), after = to_bytes && b.source.rarely(4), sum = after || b.flip();
  b.parameters(to_bytes), b.table(to_bytes && b.flip());
  if (sum)
    b.bytes({x[0], output_size(h, g.kh, g.strides[0], g.dilations[0], g.pads[0] + g.pads[2]),
             output_size(w, g.kw, g.strides[1], g.dilations[1], g.pads[1] + g.pads[3]), m});
  else b.absent();
  b.parameters(sum), b.parameters(after), b.parameters(after);
  b.node.attributes = {{"group", group}, {"strides", g.strides}, {"pads", g.pads}, {"dilations", g.dilations}};
  b.node.attributes["x_layout"] = std::string(planes ? "NCHW" : "NHWC");
  b.node.attributes["y_layout"] = std::string(!to_bytes && b.flip() ? "NCHW" : "NHWC");
  b.node.attributes["residual_after"] = int64_t{after};
  b.node.outputs = {to_bytes, !to_bytes};
}

void qconvtranspose(Builder& b) {
  const Shape x = image(b, 33);
  const int64_t m = b.size(33), kh = 1 + b.source.below(4), kw = 1 + b.source.below(4);
  b.bytes(x), b.parameters(), b.weights({m, kh, kw, x[3]}), scale_and_bias(b, m);
  const bool to_bytes = !b.source.rarely(3);
  b.parameters(to_bytes), b.table(to_bytes && b.flip());
  b.node.attributes["strides"] = b.source.pick<Ints>({{kh, kw}, {1, 1}, {2, 2}, {1, 3}, {5, 2}});
  b.node.attributes["pads"] = b.source.pick<Ints>({{0, 0, 0, 0}, {1, 1, 0, 0}, {0, 0, 1, 1}});
  b.node.attributes["y_layout"] = std::string(b.flip() ? "NCHW" : "NHWC");
  b.node.outputs = {to_bytes, !to_bytes};
}

void qpool(Builder& b) {
  const Shape x = image(b, 130);
  const char* const mode = b.source.pick({"max", "average", "global_average"});
  b.bytes(x), b.parameters();
  const Input scale = b.node.inputs[1], zero = b.node.inputs[2];
  if (*mode == 'm') b.node.inputs.push_back(scale), b.node.inputs.push_back(zero);
  else b.parameters();
  b.table(b.flip());
  const Geometry g = geometry(b, x[1], x[2]);
  b.node.attributes = {{"mode", std::string(mode)}, {"kernel_shape", Ints{g.kh, g.kw}}, {"strides", g.strides}};
  b.node.attributes["pads"] = Ints{b.flip() ? g.kh - 1 : 0, b.flip() ? g.kw - 1 : 0, 0, g.kw / 2};
  b.node.attributes["ceil_mode"] = int64_t{b.flip()};
  b.node.attributes["count_include_pad"] = int64_t{b.flip()};
}

void qconcat(Builder& b) {
  const auto n = 1 + static_cast<int64_t>(b.source.below(4));
  Input tables = b.bytes({n, 256}, Given::kConstant);
  Ints upsample, identity;
  for (int64_t i = 0; i < n; i++) {
    upsample.push_back(b.source.pick<int64_t>({1, 2, 4})), identity.push_back(b.flip());
    if (identity[i])
      for (int q = 0; q < 256; q++) tables.content[i * 256 + q] = static_cast<uint8_t>(q);
  }
  b.node.inputs[0] = tables;
  const int64_t images = b.source.pick<int64_t>({1, 2, 0});
  const int64_t h = 4 * (1 + b.source.below(3)), w = 4 * (1 + b.source.below(3));
  for (int64_t i = 0; i < n; i++) b.bytes({images, h / upsample[i], w / upsample[i], b.size(100)});
  b.node.attributes = {{"upsample", upsample}, {"identity", identity}};
}

void qresize(Builder& b) {
  b.bytes(image(b, 100)), b.table(b.flip());
  b.node.attributes["scales"] = b.source.pick<Ints>({{1, 1}, {2, 2}, {1, 3}, {4, 1}, {1, 1}});
}

void qelementwise(Builder& b) {
  const auto upsample = b.source.pick<int64_t>({1, 1, 2, 3});
  Shape a = image(b, 100), other = a;
  if (upsample > 1) a[1] *= upsample, a[2] *= upsample;
  else if (b.flip()) other[0] = b.flip() ? 1 : a[0], other[1] = other[2] = 1;
  const bool quantized = upsample > 1 || b.flip();
  b.bytes(a), b.parameters();
  quantized ? b.bytes(other) : b.floats(other, -2, 2, Given::kComputed);
  b.parameters(quantized), b.parameters(), b.table(b.flip());
  b.node.attributes = {{"operation", std::string(b.source.pick({"add", "sub", "mul"}))}, {"upsample", upsample}};
}

void qsqueezeexcite(Builder& b) {
  const Shape x = image(b, 130);
  const int64_t c = x[3], r = b.size(40);
  b.bytes(x), b.parameters();
  b.weights({r, c}), b.floats(b.flip() ? Shape{} : Shape{r}, 1e-3f, 1e-2f);
  b.flip() ? b.floats({r}, -1, 1) : b.absent();
  b.weights({c, r}), b.floats(b.flip() ? Shape{} : Shape{c}, 1e-3f, 1e-2f);
  b.flip() ? b.floats({c}, -1, 1) : b.absent();
  b.parameters(), b.table(b.flip());
  b.node.attributes = {{"activation", std::string(b.source.pick({"relu", "silu", "hardswish"}))},
                       {"gate", std::string(b.source.pick({"hardsigmoid", "sigmoid"}))},
                       {"residual", int64_t{b.flip()}}};
}

void quantizenhwc(Builder& b) {
  const Shape x = image(b, 40);
  b.floats({x[0], x[3], x[1], x[2]}, -2, 2, Given::kComputed), b.parameters();
}

void dequantizenchw(Builder& b) {
  b.bytes(image(b, 130)), b.parameters();
  b.flip() ? b.floats({256}, -2, 2) : b.absent();
}

void qtable(Builder& b) { b.bytes(image(b, 100)), b.table(true); }

}  // namespace

const std::map<std::string, Describe>& image_operators() {
  static const std::map<std::string, Describe> all = {
      {"QConv", qconv},     {"QConvTranspose", qconvtranspose}, {"QPool", qpool},
      {"QConcat", qconcat}, {"QResize", qresize},               {"QElementwise", qelementwise},
      {"QTable", qtable},   {"QSqueezeExcite", qsqueezeexcite}, {"QuantizeNHWC", quantizenhwc},
      {"DequantizeNCHW", dequantizenchw}};
  return all;
}

}  // namespace oc::fuzz
