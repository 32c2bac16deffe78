"""Multiplying by and adding constants: into the weights and bias of the node before or after.

Every affine node is seen as `y = x * scale + shift` with constant scale and shift; BatchNormalization is one
(ONNX BatchNormalization-15: scale = gamma / sqrt(var + epsilon), shift = beta - mean * scale).
Products are taken in float64 and rounded once.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.fuse.weights import bias_of, channels_last_axis, scaled, set_bias, weight_of
from onnxcompress.passes.simplify.editor import (
    Array,
    Editor,
    array_of,
    attribute,
    is_op,
    only_reader,
    producer,
    rank_of,
    static_shape,
    tensor_of,
)
from onnxcompress.passes.simplify.rules import Rule

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ARITHMETIC = ("Add", "Sub", "Mul", "Div")


class Affine(NamedTuple):
    """`y = data * scale + shift`; None: one, zero. Arrays are float64, as the node broadcasts them."""

    data: ir.Value
    scale: Array | None
    shift: Array | None


def affine_of(node: ir.Node) -> Affine | None:
    """What an arithmetic node with one constant side, or an inference BatchNormalization, does."""
    if node.op_type == "BatchNormalization":
        return _batch_norm(node)
    if len(node.inputs) != 2:
        return None
    a, b = node.inputs
    left, right = tensor_of(a), tensor_of(b)
    if a is None or b is None or (left is None) == (right is None):
        return None
    data, other = (a, b) if right is not None else (b, a)
    if other.dtype not in FLOATS and node.outputs[0].dtype not in FLOATS:
        return None
    constant = array_of(other, limit=1 << 18)
    if constant is None or constant.dtype not in (np.float32, np.float64):
        return None
    c = constant.astype(np.float64)
    swapped = right is None
    match node.op_type:
        case "Add":
            return Affine(data, None, c)
        case "Mul":
            return Affine(data, c, None)
        case "Sub":
            return Affine(data, np.array(-1.0), c) if swapped else Affine(data, None, -c)
        case "Div" if not swapped and (c != 0).all():
            return Affine(data, 1 / c, None)
    return None


def _batch_norm(node: ir.Node) -> Affine | None:
    if attribute(node, "training_mode", 0) or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return None
    arrays = [array_of(value) for value in node.inputs[1:5]]
    rank, data = rank_of(node.inputs[0]), node.inputs[0]
    if data is None or len(arrays) != 4 or any(a is None or a.dtype not in (np.float32, np.float64) for a in arrays):
        return None
    if rank is None:
        before = producer(data, "Conv", "ConvTranspose")
        rank = rank_of(before.inputs[1]) if before is not None else None
        if rank is None:
            return None
    gamma, beta, mean, variance = (a.astype(np.float64) for a in arrays if a is not None)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    if not np.isfinite(scale).all():
        return None
    shape = (-1, *(1,) * (rank - 2))
    return Affine(data, scale.reshape(shape), (beta - mean * scale).reshape(shape))


class Into(NamedTuple):
    """An affine node and the linear node beside it; scale and shift have one element a channel, or one."""

    linear: ir.Node
    scale: Array | None
    shift: Array | None


def _after_linear(node: ir.Node) -> Into | None:
    """An affine node that alone reads a Conv, ConvTranspose, Gemm or MatMul with constant weights.

    Cases:
      1. The constants have one element, or one an output channel and do not broadcast the result.
      2. The bias is absent or constant; Gemm has C of one row, beta = 1 or no C.
      3. MatMul takes the scale only: a shift stays an Add behind it.
      4. Scaling: float32 or float64 weights that no other node reads (a copy would make the file larger).
    """
    found = affine_of(node)
    if found is None or only_reader(found.data) is not node:
        return None
    linear = producer(found.data, *LINEAR)
    if linear is None or linear.graph is not node.graph:
        return None
    weight = weight_of(linear)
    if weight is None:
        return None
    if linear.op_type == "MatMul" and found.shift is not None and not (found.shift == 0).all():
        return None
    if found.shift is not None and linear.op_type != "MatMul" and not bias_of(linear, weight).known:
        return None
    if found.scale is not None and not (weight.own and weight.dtype in FLOATS and bias_of(linear, weight).known):
        return None
    axis = channels_last_axis(linear, weight)
    rank = rank_of(linear.outputs[0]) or (1 if linear.op_type == "MatMul" else len(weight.tensor.shape))
    if any(c is not None and c.ndim > rank for c in (found.scale, found.shift)):
        return None
    scale, shift = (_per_channel(c, weight.channels, axis) for c in (found.scale, found.shift))
    if (found.scale is not None and scale is None) or (found.shift is not None and shift is None):
        return None
    return Into(linear, scale, shift)


def _per_channel(constant: Array | None, channels: int, axis: int) -> Array | None:
    """The constant as a vector [channels] or [1]; None when it broadcasts otherwise.

    `axis` counts from the end: the channel axis of the result, whose rank the constant does not exceed.
    """
    if constant is None:
        return None
    if constant.size == 1:
        return constant.reshape(1)
    if constant.ndim < -axis or constant.shape[axis] != channels:
        return None
    return constant.reshape(-1) if constant.size == channels else None


def _into_linear(node: ir.Node, found: Into, editor: Editor) -> bool:
    linear, weight = found.linear, weight_of(found.linear)
    assert weight is not None
    result = linear.outputs[0]
    if not editor.can_replace(node.outputs[0], result):
        return False
    bias = bias_of(linear, weight).array
    if found.scale is not None:
        scaled(linear, weight, found.scale, editor, side="output")
        bias = None if bias is None else bias * found.scale
    if found.shift is not None and not (found.shift == 0).all():
        base = np.zeros(weight.channels) if bias is None else bias
        bias = np.broadcast_to(base + found.shift, (weight.channels,))
    if bias is not None:
        set_bias(linear, np.broadcast_to(bias, (weight.channels,)), weight, editor)
    return editor.supersede(node.outputs[0], result)


class Before(NamedTuple):
    """A factor or addend of `data`, as it broadcasts, and the linear nodes that alone read the result."""

    data: ir.Value
    constant: Array
    readers: tuple[ir.Node, ...]


def before_linear(node: ir.Node, part: Literal["scale", "shift"]) -> Before | None:
    """A node that is only a factor, or only an addend, of its data, which keeps its shape, for linear nodes alone."""
    found = affine_of(node)
    result = node.outputs[0]
    if found is None or (found.scale is None) == (found.shift is None) or result.is_graph_output():
        return None
    constant: Array | None = getattr(found, part)
    readers = linear_readers(result)
    if constant is None or readers is None or not same_rank(found.data, constant, result):
        return None
    return Before(found.data, constant, readers)


def _factor_before_linear(node: ir.Node) -> Before | None:
    """Mul or Div by one number, or one a channel, that only linear nodes with weights of their own read.

    Cases:
      1. Conv of one group: one element an input channel; of more groups, or ConvTranspose: one element.
      2. Gemm without transA and MatMul: one element, or one a column.
    """
    found = before_linear(node, "scale")
    if found is None or found.constant.size == 1:
        return found
    for reader in found.readers:
        weight = weight_of(reader)
        assert weight is not None
        if attribute(reader, "transA", 0) or input_vector(reader, found.constant, weight.inputs) is None:
            return None
    return found


def linear_readers(value: ir.Value) -> tuple[ir.Node, ...] | None:
    """The nodes that read a value, when all are linear ones of its graph with float weights of their own."""
    readers = tuple(use.node for use in value.uses())
    if not readers or value.is_graph_output() or len(set(readers)) != len(readers):
        return None
    for reader in readers:
        weight = weight_of(reader) if is_op(reader, *LINEAR) else None
        if weight is None or not weight.own or weight.dtype not in FLOATS:
            return None
        if reader.inputs[0] is not value or reader.graph is not value.graph:
            return None
    return readers


def same_rank(data: ir.Value, constant: Array, result: ir.Value) -> bool:
    """Whether the constant leaves the data's shape as it is."""
    rank = rank_of(data)
    if constant.size == 1:
        return constant.ndim == 0 or (rank is not None and constant.ndim <= rank)
    if rank is None or data.shape is None or constant.ndim > rank:
        return False
    dims = list(data.shape)[rank - constant.ndim :]
    return all(c == 1 or c == d for c, d in zip(constant.shape, dims, strict=True))


def input_vector(reader: ir.Node, constant: Array, inputs: int) -> Array | None:
    """A constant that `same_rank` allows as a vector [inputs]; None where it does not lie along the reader's inputs."""
    if reader.op_type == "Conv" and attribute(reader, "group", 1) == 1:
        axis = -(len(tensor_of(reader.inputs[1]).shape) - 1)  # type: ignore[union-attr]
    elif reader.op_type in ("Gemm", "MatMul"):
        axis = -1
    else:
        return None
    if constant.ndim < -axis or constant.shape[axis] != inputs or constant.size != inputs:
        return None
    return constant.reshape(-1)


def _into_readers(node: ir.Node, found: Before, editor: Editor) -> bool:
    for reader in found.readers:
        weight = weight_of(reader)
        assert weight is not None
        factor = found.constant
        vector = factor.reshape(1) if factor.size == 1 else input_vector(reader, factor, weight.inputs)
        assert vector is not None
        scaled(reader, weight, vector, editor, side="input")
        editor.touch(reader)
    return editor.replace(node.outputs[0], found.data)


def _into_batch_norm(node: ir.Node) -> Affine | None:
    """A per-channel affine node that alone reads a BatchNormalization with constant parameters."""
    found = affine_of(node)
    if found is None or only_reader(found.data) is not node:
        return None
    norm = producer(found.data, "BatchNormalization")
    if norm is None:
        return None
    inner = affine_of(norm)
    shape = static_shape(norm.inputs[1])
    rank = rank_of(norm.inputs[0])
    if inner is None or shape is None or rank is None:
        return None
    parts = []
    for constant in (found.scale, found.shift):
        vector = None if constant is None else _per_channel(constant, shape[0], 1 - rank)
        if constant is not None and vector is None:
            return None
        parts.append(vector)
    return Affine(norm.outputs[0], *parts)


def _emit_batch_norm(node: ir.Node, found: Affine, editor: Editor) -> bool:
    norm = found.data.producer()
    assert norm is not None
    if not editor.can_replace(node.outputs[0], norm.outputs[0]):
        return False
    gamma, beta = (array_of(v) for v in norm.inputs[1:3])
    assert gamma is not None and beta is not None
    scale = 1.0 if found.scale is None else found.scale
    shift = 0.0 if found.shift is None else found.shift
    stem = norm.outputs[0].name
    editor.set_input(norm, 1, editor.constant((gamma * scale).astype(gamma.dtype), f"{stem}_scale"))
    editor.set_input(norm, 2, editor.constant((beta * scale + shift).astype(beta.dtype), f"{stem}_bias"))
    return editor.supersede(node.outputs[0], norm.outputs[0])


INTO_WEIGHTS = (
    Rule("affine into the weights before it", ("BatchNormalization", *ARITHMETIC), _after_linear, _into_linear),
    Rule("affine into BatchNormalization", ARITHMETIC, _into_batch_norm, _emit_batch_norm),
    Rule("factor into the weights after it", ("Mul", "Div"), _factor_before_linear, _into_readers),
)
