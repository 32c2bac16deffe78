// Fuzzes what the native kernels make of a hostile model: libFuzzer's bytes choose an operator, an instruction set and
// a node that is right, then alter it in a few places; the library makes a kernel of it and runs it, as ONNX Runtime
// would.
//
// Found are: memory errors, undefined behaviour, exceptions that leave the library, hangs, memory out of proportion,
// writes to inputs, and results that depend on what memory held before or on the order of parallel work.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "runtime.hpp"

extern "C" bool onnxcompress_force_instruction_set(const char*);
extern "C" bool onnxcompress_has_instruction_set(const char*);
#ifdef OC_CUDA_EMULATED
extern "C" void onnxcompress_emulate_backwards(bool);
#endif

namespace oc::fuzz {

namespace {

// Those that are built and that the processor has.
const std::vector<const char*>& instruction_sets() {
  static const std::vector<const char*> all = [] {
    std::vector<const char*> found;
    for (const char* name : {"scalar", "avx2", "avx512", "avx512vbmi"})
      if (onnxcompress_has_instruction_set(name)) found.push_back(name);
    return found;
  }();
  return all;
}

// What became of the nodes of one operator.
struct Counts {
  long nodes = 0, made = 0, runs = 0, done = 0, no_memory = 0, altered_done = 0;
};

std::map<std::string, Counts>& counts() {
  static std::map<std::string, Counts> all;
  return all;
}

void print_counts() {
  std::fprintf(stderr, "%-18s %10s %10s %10s %10s %10s %10s\n", "operator", "nodes", "kernels", "runs", "done",
               "no memory", "altered");
  for (const auto& [name, c] : counts())
    std::fprintf(stderr, "%-18s %10ld %10ld %10ld %10ld %10ld %10ld\n", name.c_str(), c.nodes, c.made, c.runs, c.done,
                 c.no_memory, c.altered_done);
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "fuzz_kernels: %s\n", what);
  std::abort();
}

// Runs: as the node says, on other inputs, and as the node says again, which must give the same bytes.
void compute(Session& session, const Node& node, bool altered, Source& source, Counts& count) {
  Results first, other, again;
  auto run = [&](const Node& n, uint8_t fill, bool backwards, Results* results) {
#ifdef OC_CUDA_EMULATED
    onnxcompress_emulate_backwards(backwards);
#endif
    const Outcome outcome = session.run(n, fill, backwards, results);
    count.runs++, count.done += outcome == Outcome::kDone, count.no_memory += outcome == Outcome::kNoMemory;
    count.altered_done += altered && outcome == Outcome::kDone;
    return outcome;
  };
  const Outcome outcome = run(node, 0xa5, false, &first);
  Node changed = node;
  const size_t changes = 1 + source.below(3);
  for (size_t i = 0; i < changes; i++) alter(changed, source, true);
  run(changed, 0, false, &other);
  if (run(node, 0x5a, true, &again) != outcome) fail("the same inputs were taken once and refused once");
  if (first != again) fail("results depend on memory or on the order of work");
}

void fuzz(Source& source) {
  const auto& all = operators();
  const auto& [name, op] = *std::next(all.begin(), static_cast<ptrdiff_t>(source.below(all.size())));
  onnxcompress_force_instruction_set(instruction_sets()[source.below(instruction_sets().size())]);
  const size_t alterations = source.below(6);
  Node node = describe(name, source);
  for (size_t i = 0; i < alterations; i++) alter(node, source, false);
  if (!legal(node, *op)) return;
  Counts& count = counts()[name];
  Session session(*op, node);
  count.nodes++, count.made += session.made();
  if (session.made()) compute(session, node, alterations > 0, source, count);
}

}  // namespace

}  // namespace oc::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  oc::fuzz::counts();  // before what is to be called at the end, so that it still is there then
  std::atexit(oc::fuzz::print_counts);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  oc::fuzz::Source source(data, size);
  try {
    oc::fuzz::fuzz(source);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fuzz_kernels: an exception left the library: %s\n", error.what());
    std::abort();
  }
  return 0;
}
