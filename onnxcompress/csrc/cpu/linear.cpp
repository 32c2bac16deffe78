#include "cpu/linear.hpp"

#include "cpu/linear_sinks.hpp"

namespace oc::OC_ISA {
namespace {

void multiply_linear(const Rows& x, const PackedWeights& w, const Span& s, const LinearOutput& o) {
  auto run = [&](const auto& sink) { multiply_rows(x, w, s.begin, s.end, s.column_begin, s.column_end, sink); };
  // The most frequent output does not go by way of memory.
  if (o.bytes && o.activation.kind == Activation::kNone && !o.row_scale && !o.residual)
    return run(ToBytes{o.scale, o.offset, o.bytes, w.n, w.n, o.table});
  run(Deferred{&o, w.n, finish_of(o)});
}

}  // namespace

extern const LinearKernels linear = {kPanel * kLanes, kLanes, pack_weights, multiply_linear};

}  // namespace oc::OC_ISA
