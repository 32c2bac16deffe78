"""Layer normalization that an exporter wrote out, back in one node; with the sum before it, outside the standard."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.fuse.activations import near, operands
from onnxcompress.passes.simplify.editor import (
    Editor,
    attribute,
    dims_of,
    ints_of,
    is_op,
    only_reader,
    producer,
    rank_of,
    scalar_of,
    tensor_of,
)
from onnxcompress.passes.simplify.noops import same_shape
from onnxcompress.passes.simplify.rules import Rule

SHORT = 256
"""Elements up to which a norm without a scale gets one of ones."""


class LayerNorm(NamedTuple):
    data: ir.Value
    scale: ir.Value | None
    bias: ir.Value | None
    epsilon: float
    result: ir.Value


def _mean_of(value: ir.Value | None) -> ir.Value | None:
    """x, where `value` is the mean of x over its last axis, kept."""
    node = producer(value, "ReduceMean")
    if node is None or not attribute(node, "keepdims", 1):
        return None
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    rank = rank_of(node.inputs[0])
    if axes is None or len(axes) != 1 or (axes[0] != -1 and (rank is None or axes[0] != rank - 1)):
        return None
    return node.inputs[0]


def _layer_norm(node: ir.Node) -> LayerNorm | None:
    """From Sqrt(variance + epsilon). Ba, Kiros and Hinton, 2016.

    Cases:
      1. The deviation d = x - mean(x), its square by Pow 2 or d * d, over the last axis.
      2. d / sqrt, or d * (1 / sqrt).
      3. Times a constant vector, plus a constant vector, or without one of them; without a scale only where
         ones in its place are at most 1 KB.
      4. The deviation, the root and the quotient are read by the pattern alone.
    """
    variance = next(
        ((a, scalar_of(b)) for a, b in operands(producer(node.inputs[0], "Add")) if scalar_of(b) is not None),
        None,
    )
    if variance is None or variance[1] is None:
        return None
    deviation = _squared(_mean_of(variance[0]))
    data = _centered(deviation)
    if deviation is None or data is None:
        return None
    divide = only_reader(node.outputs[0])
    if is_op(divide, "Reciprocal"):
        assert divide is not None
        root = divide.outputs[0]
        divide = only_reader(root)
        if not is_op(divide, "Mul"):
            return None
    else:
        root = node.outputs[0]
        if not is_op(divide, "Div") or divide is None or divide.inputs[1] is not root:
            return None
    if divide is None or deviation not in divide.inputs:
        return None
    return _scaled(data, divide.outputs[0], variance[1])


def _squared(value: ir.Value | None) -> ir.Value | None:
    node = producer(value, "Pow", "Mul")
    if node is None:
        return None
    if node.op_type == "Mul":
        return node.inputs[0] if node.inputs[0] is node.inputs[1] else None
    return node.inputs[0] if near(scalar_of(node.inputs[1]), 2.0) else None


def _centered(value: ir.Value | None) -> ir.Value | None:
    node = producer(value, "Sub")
    if node is None or node.inputs[0] is None or value is None:
        return None
    data = node.inputs[0]
    readers = {use.node for use in value.uses()}
    if _mean_of(node.inputs[1]) is not data or len(readers) != 2 or value.is_graph_output():
        return None
    return data


def _vector(value: ir.Value, data: ir.Value) -> bool:
    tensor = tensor_of(value)
    if tensor is None or len(tensor.shape) != 1 or data.shape is None:
        return False
    last = data.shape[len(data.shape) - 1]
    return isinstance(last, int) and dims_of(tensor)[0] == last


def _scaled(data: ir.Value, normal: ir.Value, epsilon: float) -> LayerNorm | None:
    """The norm with the factor and the term that follow it, as far as they are constant vectors."""
    scale, last = _operand("Mul", normal, data)
    bias, last = _operand("Add", last, data)
    if scale is None and not _short(data):
        return None
    return LayerNorm(data, scale, bias, epsilon, last)


def _operand(op_type: str, value: ir.Value, data: ir.Value) -> tuple[ir.Value | None, ir.Value]:
    """The constant vector that the only reader of a value adds or multiplies, and its result; else None, the value."""
    node = only_reader(value)
    if node is not None and is_op(node, op_type):
        constant = next((b for a, b in operands(node) if a is value and _vector(b, data)), None)
        if constant is not None:
            return constant, node.outputs[0]
    return None, value


def _short(data: ir.Value) -> bool:
    """Whether a scale of ones takes less room than the nodes it replaces."""
    last = data.shape[len(data.shape) - 1] if data.shape is not None else None
    return isinstance(last, int) and last <= SHORT and data.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _emit(node: ir.Node, found: LayerNorm, editor: Editor) -> bool:
    last = found.result.producer()
    assert last is not None
    scale = found.scale
    if scale is None:
        assert found.data.shape is not None and found.data.dtype is not None
        scale = editor.constant(np.ones(found.data.shape[-1], found.data.dtype.numpy()), "ones")
    inputs = [found.data, scale] + ([found.bias] if found.bias is not None else [])
    attributes = {"axis": -1, "epsilon": found.epsilon}
    new = editor.insert("LayerNormalization", inputs, attributes, before=last, like=found.result)
    return editor.replace(found.result, new.outputs[0])


class Skip(NamedTuple):
    add: ir.Node
    a: ir.Value
    b: ir.Value


def _skip_layer_norm(node: ir.Node) -> Skip | None:
    """LayerNormalization of a sum of two values of one shape and rank 3, over the last axis.

    Cases:
      1. The sum is read by others too: the node gives it as its fourth output.
      2. float32 with scale and bias constant; the norm gives its first output only.
    """
    add = producer(node.inputs[0], "Add")
    if add is None or add.graph is not node.graph or attribute(node, "axis", -1) not in (-1, 2):
        return None
    a, b = add.inputs
    if a is None or b is None or rank_of(a) != 3 or not same_shape(a, b) or a.dtype != ir.DataType.FLOAT:
        return None
    if len(node.inputs) < 3 or any(tensor_of(v) is None or rank_of(v) != 1 for v in node.inputs[1:3]):
        return None
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return None
    if tensor_of(a) is not None or tensor_of(b) is not None or add.outputs[0].is_graph_output():
        return None
    return Skip(add, a, b)


def _emit_skip(node: ir.Node, found: Skip, editor: Editor) -> bool:
    total = found.add.outputs[0]
    others = [use for use in total.uses() if use.node is not node]
    # The new node stands where the sum stood, so that it is in front of all who read the sum.
    new = editor.insert(
        "SkipLayerNormalization", [found.a, found.b, *node.inputs[1:3]],
        {"epsilon": attribute(node, "epsilon", 1e-5)}, before=found.add, like=node.outputs[0],
        outputs=4 if others else 1, domain="com.microsoft",
    )  # fmt: skip
    if not editor.replace(node.outputs[0], new.outputs[0]):
        editor.collect(new)
        return False
    if others:
        for unused in new.outputs[1:3]:
            unused.name = ""
        new.outputs[3].type, new.outputs[3].shape = total.type, total.shape
        editor.replace(total, new.outputs[3])
    editor.model.graph.opset_imports.setdefault("com.microsoft", 1)
    return True


LAYER_NORM = (Rule("LayerNormalization", ("Sqrt",), _layer_norm, _emit, since=17),)
SKIP_LAYER_NORM = (Rule("SkipLayerNormalization", ("LayerNormalization",), _skip_layer_norm, _emit_skip, since=17),)
