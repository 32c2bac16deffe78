"""Lowering: from what a graph says to what a runtime runs fast.

These passes change no result beyond rounding. They know the kernels of stock ONNX Runtime, so they come last,
after quantization, and only where measuring shows a gain.
"""

from onnxcompress.passes.lower.bias import KeepBiasSum
from onnxcompress.passes.lower.convolution import FoldFocus
from onnxcompress.passes.lower.functions import replaced_nodes
from onnxcompress.passes.lower.linear import FuseIntegerLinear
from onnxcompress.passes.lower.native import LowerNative, native_nodes
from onnxcompress.passes.lower.residual import KeepResidualSum
from onnxcompress.passes.lower.silu import FuseSiLU
from onnxcompress.passes.lower.transformer import attention_tensors
from onnxcompress.passes.lower.weight_only import LowerWeightOnly

__all__ = [
    "FoldFocus",
    "FuseIntegerLinear",
    "FuseSiLU",
    "KeepBiasSum",
    "KeepResidualSum",
    "LowerNative",
    "LowerWeightOnly",
    "attention_tensors",
    "native_nodes",
    "replaced_nodes",
]
