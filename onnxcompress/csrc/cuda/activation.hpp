// The activation functions of onnxcompress/ops/activation.py, by number. Host code may include this.
#pragma once

namespace oc::cuda {

enum class Activation : int { kNone, kRelu, kGelu, kGeluTanh, kSilu, kHardSwish };

}  // namespace oc::cuda
