#include "cpu/embedding.hpp"

#include "cpu/simd.hpp"

namespace oc::OC_ISA {
namespace {

void sum(const Embedding& e, const Tokens& tokens, int64_t begin, int64_t end, float* y) {
  const int n = e.channels;
  for (int64_t t = begin; t < end; t++, y += n) {
    if (t + 1 < end)  // words are far apart: the next one is on its way while this one is summed
      for (int c = 0; c < n; c += 64) prefetch(e.words + tokens.words[t + 1] * n + c);
    const int8_t* word = e.words + tokens.words[t] * n;
    const float* type = e.types ? e.types + tokens.types[t] * n : nullptr;
    const float* position = e.positions ? e.positions + tokens.positions[t] * n : nullptr;
    const vf scale = setf(e.word_scale[tokens.words[t]]);
    const int8_t* bytes = e.position_bytes ? e.position_bytes + tokens.positions[t] * n : nullptr;
    const vf position_scale = setf(bytes ? e.position_scale[tokens.positions[t]] : 0.f);
    int c = 0;
    for (; c + kLanes <= n; c += kLanes) {
      vf x = mul(to_float(load_s8(word + c)), scale);
      if (type) x = add(x, loadf(type + c));
      if (position) x = add(x, loadf(position + c));
      if (bytes) x = add(x, mul(to_float(load_s8(bytes + c)), position_scale));
      storef(y + c, x);
    }
    if (c == n) continue;
    vf x = mul(to_float(load_s8(word + c, n - c)), scale);
    if (type) x = add(x, loadf(type + c, n - c));
    if (position) x = add(x, loadf(position + c, n - c));
    if (bytes) x = add(x, mul(to_float(load_s8(bytes + c, n - c)), position_scale));
    storef(y + c, x, n - c);
  }
}

}  // namespace

extern const EmbeddingKernels embedding = {sum};

}  // namespace oc::OC_ISA
