// What the processor could do at most: products of bytes with nothing to load or to store.
#pragma once

#include "cpu/isa.hpp"

namespace oc {

struct PeakKernels {
  // Runs `rounds` times 12 dots of vectors; gives the number of multiply-accumulates of one round.
  int (*dots)(long rounds);
};

}  // namespace oc

OC_DECLARE_KERNELS(PeakKernels, peak)
