"""Which operators can be quantized, how, and why others cannot.

The tables hold what ONNX Runtime's CPU kernels run in int8; an operator that is not here stays float, and
the reason is told to the user.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

STANDARD = ("", "ai.onnx")

COMPUTE = {"Conv", "Gemm", "MatMul"}

NO_KERNEL = {
    "ConvTranspose": "ONNX Runtime has no int8 transposed convolution",
    "LSTM": "ONNX Runtime has no int8 LSTM for QDQ graphs",
    "GRU": "ONNX Runtime has no int8 GRU",
    "RNN": "ONNX Runtime has no int8 RNN",
    "Einsum": "ONNX Runtime has no int8 Einsum",
    "Attention": "attention is kept float",
}

FUSED_ACTIVATIONS = {"Relu", "Clip"}
"""Run inside the quantized node before them: saturation does their work."""

ELEMENTWISE = {"Add", "Mul"}
"""Int8 kernels with ranges of their own for each input and the output."""

SAME_RANGE = {
    "MaxPool",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Concat",
    "Slice",
    "Split",
}
"""Their output holds values of their inputs, so all of them share one scale and zero point."""

POOLING = {"GlobalAveragePool", "AveragePool"}
"""Int8 kernels with one input and a range of its own for the output."""


@dataclass(frozen=True)
class Decision:
    """What became of a node: quantized or not, and why."""

    name: str
    op: str
    quantized: bool
    reason: str


def is_constant(value: ir.Value | None) -> bool:
    """A weight: an initializer that is not also an input of the graph."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def is_float(value: ir.Value | None) -> bool:
    """Of type float32; a value of unknown type counts, since exporters leave value_info out."""
    return value is not None and value.dtype in (None, ir.DataType.FLOAT)


def weight_index(node: ir.Node) -> int | None:
    """Which input of a compute node is its constant weight."""
    if node.op_type in ("Conv", "Gemm"):
        return 1 if is_constant(node.inputs[1]) else None
    if is_constant(node.inputs[1]) and not is_constant(node.inputs[0]):
        return 1
    return None


def channel_axis(node: ir.Node, rank: int) -> int:
    """The axis of the output channels in the node's weight."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return rank - 1


def refusal(node: ir.Node, *, activation_matmuls: bool, minimum_weights: int, native: bool = False) -> str | None:
    """Why a compute node cannot be quantized, or None if it can.

    1. Its activation input and output are float32.
    2. Conv, Gemm: the weight, and the bias if there is one, are constant; Gemm with alpha = beta = 1, no transA.
    3. MatMul: one constant factor of rank 2 (`activation_matmuls`: or none).
    4. ConvTranspose: for our own kernels (`native`), without groups.
    """
    if node.op_type in NO_KERNEL and not (native and _is_plain_transpose(node)):
        return NO_KERNEL[node.op_type]
    if not is_float(node.inputs[0]) or not is_float(node.outputs[0]):
        return "its activations are not float32"
    index = weight_index(node)
    if index is None:
        if node.op_type == "MatMul" and activation_matmuls and not any(is_constant(v) for v in node.inputs):
            return None
        if node.op_type == "MatMul" and not any(is_constant(v) for v in node.inputs):
            return "both its factors are activations"
        return "its weight is not a constant second input"
    weight = node.inputs[index]
    assert weight is not None and weight.const_value is not None
    if weight.const_value.dtype != ir.DataType.FLOAT:
        return "its weight is not float32"
    if weight.const_value.size < minimum_weights:
        return f"it has fewer than {minimum_weights} weights"
    return _operand_refusal(node, weight.const_value)


def _is_plain_transpose(node: ir.Node) -> bool:
    return node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) == 1


def _operand_refusal(node: ir.Node, weight: ir.TensorProtocol) -> str | None:
    if node.op_type == "MatMul" and len(weight.shape) != 2:
        return "its weight is not a matrix"
    if weight.size == 0:
        return "its weight is empty"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not is_constant(bias):
        return "its bias is not constant"
    if node.op_type == "Gemm":
        if node.attributes.get_int("transA", 0):
            return "Gemm with transA"
        if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
            return "Gemm with alpha or beta other than 1"
        if bias is not None and bias.const_value is not None and not _is_row(bias.const_value):
            return "Gemm whose bias is not a vector"
    return None


def _is_row(bias: ir.TensorProtocol) -> bool:
    """Is a Gemm's bias the same for all rows: `[N]` or `[1, N]`?"""
    return len(bias.shape) == 1 or (len(bias.shape) == 2 and bias.shape[0] == 1)


def saturation(node: ir.Node) -> tuple[float, float] | None:
    """Bounds outside which an activation's output is constant to 5e-5, or None: its input's range may end there."""
    match node.op_type:
        case "Relu":
            return 0.0, math.inf
        case "HardSwish":
            return -3.0, math.inf
        case "Sigmoid":
            return -10.0, 10.0
        case "Tanh":
            return -6.0, 6.0
        case "HardSigmoid":
            alpha = node.attributes.get_float("alpha", 0.2)
            beta = node.attributes.get_float("beta", 0.5)
            return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else None
        case _:
            return None


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, or None if it is read elsewhere too or is a graph output."""
    if value.is_graph_output():
        return None
    consumers = value.consumers()
    return consumers[0] if len(consumers) == 1 else None


def fused_output(node: ir.Node) -> ir.Value:
    """The output of a Conv or Gemm after the activation that ONNX Runtime runs inside it.

    Clip counts when its bounds are constants, its lower one 0 and its upper one positive: then the zero point
    0 and saturation give it exactly.
    """
    out = node.outputs[0]
    follower = only_consumer(out)
    if follower is None or follower.domain not in STANDARD or follower.op_type not in FUSED_ACTIVATIONS:
        return out
    if follower.op_type == "Clip":
        bounds = [constant_scalar(value) for value in follower.inputs[1:3]]
        if len(bounds) != 2 or bounds[0] != 0.0 or bounds[1] is None or bounds[1] <= 0:
            return out
    return follower.outputs[0]


def constant_scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element, or None."""
    if value is None or value.const_value is None or value.is_graph_input() or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(()))


def activation_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that carry data: not its shapes, axes, bounds or constants."""
    inputs: Iterable[ir.Value | None] = node.inputs
    if node.op_type in SAME_RANGE and node.op_type != "Concat":
        inputs = node.inputs[:1]
    return [value for value in inputs if value is not None and not is_constant(value)]
