"""The constant weights and bias of linear nodes: where their channels lie, and how they are changed."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    Array,
    Editor,
    array_of,
    attribute,
    dims_of,
    shape_of,
    tensor_of,
)
from onnxcompress.passes.simplify.folding import lazy_tensor


class Weight(NamedTuple):
    """A linear node's constant weights.

    Attributes:
        channels: of the output; `inputs`: of the input.
        own: whether this node alone reads them.
    """

    tensor: ir.TensorProtocol
    dtype: ir.DataType
    channels: int
    inputs: int
    own: bool


class Bias(NamedTuple):
    """`known`: absent or constant, in a form that `set_bias` can write; `array`: float64 [channels], or None."""

    known: bool
    array: Array | None


def weight_of(node: ir.Node) -> Weight | None:
    """The weights of a Conv, ConvTranspose, Gemm or MatMul when they are constant; MatMul's must be a matrix."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = tensor_of(value)
    if value is None or tensor is None:
        return None
    shape = dims_of(tensor)
    own = len(value.uses()) == 1 and not value.is_graph_output()
    match node.op_type:
        case "Conv" if len(shape) >= 3:
            return Weight(tensor, tensor.dtype, shape[0], shape[1] * attribute(node, "group", 1), own)
        case "ConvTranspose" if len(shape) >= 3:
            return Weight(tensor, tensor.dtype, shape[1] * attribute(node, "group", 1), shape[0], own)
        case "Gemm" if len(shape) == 2:
            k, n = reversed(shape) if attribute(node, "transB", 0) else shape
            return Weight(tensor, tensor.dtype, n, k, own)
        case "MatMul" if len(shape) == 2:
            return Weight(tensor, tensor.dtype, shape[1], shape[0], own)
    return None


def channels_last_axis(node: ir.Node, weight: Weight) -> int:
    """The axis of the output's channels, counted from the end."""
    return -1 if node.op_type in ("Gemm", "MatMul") else 1 - len(weight.tensor.shape)


def bias_of(node: ir.Node, weight: Weight) -> Bias:
    """The bias as a vector, Gemm's with beta applied; unknown where it is not constant or not one a channel."""
    if node.op_type == "MatMul":
        return Bias(True, None)
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return Bias(True, None)
    array = array_of(value)
    if array is None or array.size not in (1, weight.channels) or (array.size > 1 and array.shape[-1] != array.size):
        return Bias(False, None)
    factor = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    return Bias(True, np.broadcast_to(array.reshape(-1).astype(np.float64) * factor, (weight.channels,)))


def set_bias(node: ir.Node, bias: Array, weight: Weight, editor: Editor) -> None:
    """Write a bias [channels] of the weights' type."""
    old = node.inputs[2] if len(node.inputs) > 2 else None
    name = old.name if old is not None and old.name else f"{node.outputs[0].name}_bias"
    editor.set_input(node, 2, editor.constant(bias.astype(weight.dtype.numpy()), name))
    if node.op_type == "Gemm" and attribute(node, "beta", 1.0) != 1.0:
        editor.set_attribute(node, "beta", 1.0)


def input_sums(node: ir.Node, weight: Weight, inputs: Array) -> Array:
    """What a Conv or Gemm makes of an input that is one number a channel everywhere, bias apart.

    Args:
        inputs: float64 [input channels].

    Returns:
        float64 [output channels].
    """
    array = weight.tensor.numpy().astype(np.float64)
    if node.op_type == "Gemm":
        matrix = array.T if attribute(node, "transB", 0) else array
        return np.asarray(inputs @ matrix * attribute(node, "alpha", 1.0))
    groups = attribute(node, "group", 1)
    window = array.reshape(groups, -1, array.shape[1], array[0, 0].size).sum(axis=3)
    return np.asarray(np.einsum("goc,gc->go", window, inputs.reshape(groups, -1))).reshape(-1)


def scaled(node: ir.Node, weight: Weight, scale: Array, editor: Editor, *, side: Literal["output", "input"]) -> None:
    """Multiply the weights by one number, or by one a channel of the given side.

    Weights that lie outside the file are multiplied when the model is written, one tensor at a time.
    """
    shape = _broadcast_shape(node, weight, scale, side)
    dtype = weight.dtype
    source = weight.tensor

    def multiply(array: Array) -> Array:
        factor = scale
        if shape is None:  # ConvTranspose of groups: output channels lie in two axes
            groups = attribute(node, "group", 1)
            per_input = np.repeat(scale.reshape(groups, 1, -1), weight.inputs // groups, axis=1)
            factor = per_input.reshape(weight.inputs, -1, *(1,) * (array.ndim - 2))
        else:
            factor = scale.reshape(shape)
        return (array.astype(np.float64) * factor).astype(dtype.numpy())

    old = node.inputs[1]
    assert old is not None
    name = old.name or "weight"
    if isinstance(source, ir.ExternalTensor | ir.LazyTensor):
        value = editor.constant(lazy_tensor(source, multiply, dtype, shape_of(source), name), name)
    else:
        value = editor.constant(multiply(source.numpy()), name)
    editor.set_input(node, 1, value)


def _broadcast_shape(node: ir.Node, weight: Weight, scale: Array, side: str) -> tuple[int, ...] | None:
    rank = len(weight.tensor.shape)
    if scale.size == 1:
        return (1,) * rank
    match node.op_type:
        case "Conv":
            axis = 0 if side == "output" else 1
        case "ConvTranspose":
            if attribute(node, "group", 1) != 1:
                return None
            axis = 1
        case _:
            transposed = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
            axis = int((side == "output") != transposed)
    return tuple(-1 if i == axis else 1 for i in range(rank))
