"""What a model's outputs are: class scores, embeddings, or maps of numbers; and where the logits are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]
Kind = Literal["classes", "binary", "embedding", "dense"]
Form = Literal["logits", "probabilities"]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
SOFTMAX = ("Softmax", "LogSoftmax")
TRANSPARENT = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "DequantizeLinear", "QuantizeLinear")
PICKS = (*SOFTMAX, "ArgMax", "TopK")
SUM_TOLERANCE = 1e-3
"""How far from one the sum of probabilities may be (rounding, float16)."""


@dataclass(frozen=True)
class Output:
    """A float output of a model.

    Attributes:
        name: the output.
        kind: classes (scores of which one wins), binary (a probability for each element), embedding (vectors that are
            compared by their direction) or dense.
        scores: the value to compare: of classes and probabilities the logits, where the graph has them; else the
            output.
        form: of `scores`, for classes and binary: logits or probabilities.
        axis: of the classes in `scores`, counted from the end (negative).
        own_form: of the output itself; log probabilities are logits.
    """

    name: str
    kind: Kind
    scores: str
    form: Form = "logits"
    axis: int = -1
    own_form: Form = "logits"


def float_outputs(model: ir.Model) -> list[ir.Value]:
    """The outputs that are float tensors, in order."""
    return [
        value for value in model.graph.outputs
        if isinstance(value.type, ir.TensorType) and value.type.dtype in FLOATS
    ]  # fmt: skip


def describe_outputs(model: ir.Model, found: Mapping[str, Array]) -> list[Output]:
    """Say of each float output what it is, by the first of these that is true.

    1. It comes from a Softmax or LogSoftmax: classes along its axis; the logits are what the Softmax reads.
    2. Its values are no less than 0 and sum to 1 along the last axis (a softmax in parts): probabilities.
    3. A Softmax, ArgMax or TopK reads it: logits.
    4. It comes from a Sigmoid: a probability for each element; the logits are what the Sigmoid reads.
    5. Two axes, straight from a Gemm, or a MatMul and an Add, with constants: logits.
    6. Two axes; or three, from a LayerNormalization: an embedding along the last axis.
    7. A map of numbers.

    Args:
        found: what the outputs were on some feed.
    """
    opset = model.opset_imports.get("", 1)
    return [_describe(value, found[value.name or ""], opset) for value in float_outputs(model)]


def _describe(value: ir.Value, found: Array, opset: int) -> Output:
    name = value.name or ""
    rank = found.ndim
    maker = _behind(value)
    if maker is not None and maker.op_type in SOFTMAX and maker.inputs[0] is not None:
        axis = _class_axis(maker, rank, opset)
        form: Form = "probabilities" if maker.op_type == "Softmax" else "logits"
        # Through a reshape the axis may be another one: the output itself is compared then.
        if maker.outputs[0] is value or _same_shape(maker.outputs[0], value):
            return Output(name, "classes", maker.inputs[0].name or "", "logits", axis, form)
        return Output(name, "classes", name, form, -1, form)
    if rank >= 2 and found.shape[-1] >= 2 and _sums_to_one(found):
        return Output(name, "classes", name, "probabilities", -1, "probabilities")
    picking = next((use.node for use in value.uses() if use.node.op_type in PICKS), None)
    if picking is not None:
        return Output(name, "classes", name, "logits", _class_axis(picking, rank, opset))
    if maker is not None and maker.op_type == "Sigmoid" and maker.inputs[0] is not None:
        same = maker.outputs[0] is value or _same_shape(maker.outputs[0], value)
        scores, form = (maker.inputs[0].name or "", "logits") if same else (name, "probabilities")
        return Output(name, "binary", scores, form, own_form="probabilities")
    if rank == 2 and found.shape[-1] >= 2:
        return Output(name, "classes" if _is_linear(maker) else "embedding", name)
    if rank == 3 and maker is not None and maker.op_type == "LayerNormalization":
        return Output(name, "embedding", name)
    return Output(name, "dense", name)


def _behind(value: ir.Value) -> ir.Node | None:
    """The node that computes a value, past those that only change its shape or type."""
    node = value.producer()
    while node is not None and node.op_type in TRANSPARENT and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Only nodes that keep the shape lie between."""
    node = other.producer()
    while node is not None and node.outputs[0] is not one:
        if node.op_type not in ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear"):
            return False
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node is not None


def _class_axis(node: ir.Node, rank: int, opset: int) -> int:
    default = 0 if node.op_type == "ArgMax" else -1 if node.op_type == "TopK" or opset >= 13 else 1
    axis = node.attributes.get_int("axis", default)
    return axis if axis < 0 else axis - rank


def _sums_to_one(found: Array) -> bool:
    return bool(
        found.size and found.min() >= 0 and np.allclose(found.sum(-1, dtype=np.float64), 1, atol=SUM_TOLERANCE)
    )  # fmt: skip


def _is_linear(node: ir.Node | None) -> bool:
    """A Gemm, or a MatMul and an Add of a constant: the last layer of a classifier."""
    if node is None:
        return False
    if node.op_type == "Add":
        others = [value for value in node.inputs if value is not None and not value.is_initializer()]
        producer = others[0].producer() if len(others) == 1 else None
        return producer is not None and producer.op_type == "MatMul"
    return node.op_type == "Gemm"
