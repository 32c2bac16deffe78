#include "cpu/linear.hpp"

#include "cpu/linear_sinks.hpp"

namespace oc::OC_ISA {
namespace {

void multiply_linear(const Rows& x, const PackedWeights& w, const Span& s, const LinearOutput& o) {
  multiply_rows(x, w, s.begin, s.end, s.column_begin, s.column_end, Deferred{&o, w.n, finish_of(o)});
}

}  // namespace

extern const LinearKernels linear = {kPanel * kLanes, kLanes, pack_weights, multiply_linear};

}  // namespace oc::OC_ISA
