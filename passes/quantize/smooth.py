"""SmoothQuant: moving the outliers of activations into the weights that they meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize import roles
from onnxcompress.passes.quantize.constants import float_constant, replace_constant
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.simplify.editor import Editor

Array = np.ndarray[Any, Any]

NORMALIZATIONS: dict[tuple[str, str], tuple[int, ...]] = {
    ("", "LayerNormalization"): (1, 2),
    ("", "RMSNormalization"): (1,),
    ("", "SimplifiedLayerNormalization"): (1,),
    ("com.microsoft", "SkipLayerNormalization"): (2, 3),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): (2,),
}
"""Normalizations, with the inputs that their first output is proportional to, channel by channel."""

HOMOGENEOUS = ("Relu", "LeakyRelu", "Identity")
"""f(s x) = s f(x) for s > 0, element by element."""

LEAST_STEP = 1e-3
"""Scales that all lie closer to 1 than this are not worth a change."""


class SmoothActivations(ir.passes.InPlacePass):
    """Divide activations by a scale per channel and multiply the rows of the weights they meet by it.

    s_j = max|x_j|^alpha / max|W_j|^(1 - alpha), the second over all readers (Xiao et al., SmoothQuant, 2023,
    equation 4). The model computes the same in float.

    1. x is read by MatMul (as its first factor) and Gemm (without transA) with constant matrices only: whoever
       makes x takes 1 / s: a normalization over the last axis (gamma and beta), a linear layer (its output
       channels and bias), a product with or a sum with a constant; through Relu, LeakyRelu and Identity, and
       through one factor of a product of two activations. The values between have no other reader.
    2. Otherwise, with `allow_mul`: those MatMul and Gemm read x * (1 / s) from a Mul of its own, everybody else
       reads x. After a LayerNorm that also feeds a residual this is one cheap multiplication.
    3. Otherwise x stays, and it is said why.

    The main graph's activations; readers in subgraphs count as readers.

    Args:
        statistics: max|x| per channel of the last axis, `[channels]`, by tensor name. Tensors that no linear
            layer reads are passed over.
        alpha: 0 leaves the activations' share to the weights, 1 moves all of it into the weights.
        allow_mul: case 2.

    Attributes:
        decisions: what became of every MatMul and Gemm that reads one of the tensors; set by the call.
        statistics: those given, with what the call changed or added; set by the call.

    Raises:
        ValueError: alpha outside [0, 1]; statistics that are not finite, not a vector of the layer's inputs, or
            of a tensor that the model does not have.
    """

    def __init__(self, statistics: Mapping[str, Array], alpha: float = 0.5, *, allow_mul: bool = False) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
        self.statistics = {name: np.asarray(peaks, np.float64) for name, peaks in statistics.items()}
        self.alpha = alpha
        self.allow_mul = allow_mul
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        values = {value.name: value for value in model.graph.inputs}
        values |= {out.name: out for node in model.graph for out in node.outputs}
        missing = sorted(name for name in self.statistics if name not in values)
        if missing:
            raise ValueError(f"statistics of {missing[0]!r}, which the model does not have")
        editor = Editor(model)
        self.decisions = []
        for name in list(self.statistics):
            self._smooth(values[name], editor)
        return ir.passes.PassResult(model, modified=editor.changes > 0)

    def _smooth(self, value: ir.Value, editor: Editor) -> None:
        readers = [node for node, index in value.uses() if _is_linear(node, index)]
        if not readers:
            return
        assert value.name is not None
        scales = self._scales(value.name, readers)
        done, outcome = False, "its input is smooth already"
        if np.max(np.abs(np.log(scales))) > LEAST_STEP:
            done, outcome = self._apply(value, readers, scales, editor)
        self.decisions += [Decision(n.name or n.outputs[0].name or "", n.op_type, done, outcome) for n in readers]

    def _apply(self, value: ir.Value, readers: list[ir.Node], scales: Array, editor: Editor) -> tuple[bool, str]:
        name = value.name or ""
        edits = _absorbing(value, len(scales)) if len(value.uses()) == len(readers) else _others(value, readers)
        if value.is_graph_output():
            edits = "its input is an output of the model"
        if isinstance(edits, list):
            for edit in edits:
                edit.divide(scales, editor)
            self.statistics[name] = self.statistics[name] / scales
            outcome = f"smoothed in {edits[-1].node.op_type} {edits[-1].node.name}".rstrip()
        elif self.allow_mul:
            product = _insert_product(value, 1 / scales, editor.model.graph, editor)
            for node in readers:
                editor.set_input(node, 0, product)
            self.statistics[product.name or ""] = self.statistics[name] / scales
            outcome = f"smoothed by a Mul, since {edits}"
        else:
            return False, edits
        for node in readers:
            weight = float_constant(node.inputs[1])
            assert weight is not None
            by_row = scales.reshape((1, -1) if roles.channel_axis(node, 2) == 0 else (-1, 1))
            replace_constant(editor, node, 1, (weight * by_row).astype(np.float32))
        return True, outcome

    def _scales(self, name: str, readers: list[ir.Node]) -> Array:
        peaks = self.statistics[name]
        if peaks.ndim != 1 or not np.all(np.isfinite(peaks)) or np.any(peaks < 0):
            raise ValueError(f"statistics of {name!r} must be one finite max|x| per channel")
        weights = np.zeros_like(peaks)
        for node in readers:
            weight = float_constant(node.inputs[1])
            assert weight is not None
            rows = np.max(np.abs(weight), axis=roles.channel_axis(node, 2), initial=0).astype(np.float64)
            if rows.shape != peaks.shape:
                raise ValueError(f"statistics of {name!r} have {len(peaks)} channels, its readers {len(rows)}")
            weights = np.maximum(weights, rows)
        scales = np.ones_like(peaks)
        alive = (peaks > 0) & (weights > 0)  # a dead channel has nothing to move
        scales[alive] = peaks[alive] ** self.alpha / weights[alive] ** (1 - self.alpha)
        return np.clip(scales, 1e-5, 1e5)


@dataclass(frozen=True)
class _Edit:
    """A constant that takes 1 / s along one of its axes; a constant with one element there becomes a vector."""

    node: ir.Node
    index: int
    axis: int = -1

    def divide(self, scales: Array, editor: Editor) -> None:
        array = float_constant(self.node.inputs[self.index])
        assert array is not None
        shape = [1] * max(array.ndim, 1)
        shape[self.axis] = -1
        replace_constant(editor, self.node, self.index, (array / scales.reshape(shape)).astype(np.float32))


def _is_linear(node: ir.Node, index: int) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or node.domain not in roles.STANDARD or index != 0:
        return False
    weight = float_constant(node.inputs[1])
    return weight is not None and weight.ndim == 2 and not node.attributes.get_int("transA", 0)


def _others(value: ir.Value, readers: list[ir.Node]) -> str:
    other = next(node for node, index in value.uses() if node not in readers or index != 0)
    return f"{other.op_type} {other.name or ''}".rstrip() + " reads its input too"


def _insert_product(value: ir.Value, factors: Array, graph: ir.Graph, editor: Editor) -> ir.Value:
    """value * factors, right behind whoever makes the value."""
    factor = editor.constant(factors.astype(np.float32), f"{value.name}/smoothing")
    node = ir.node("Mul", [value, factor], name=editor.fresh(f"{value.name}/smooth"))
    out = node.outputs[0]
    out.name, out.type, out.shape = editor.fresh(f"{value.name}/smoothed"), value.type, value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
    editor.touch(node)
    editor.changes += 1
    return out


def _absorbing(value: ir.Value, channels: int) -> list[_Edit] | str:
    """The constants that can take a scale of `value`'s last axis, or why there are none; case 1."""
    node = value.producer()
    if node is None:
        return "its input is an input of the model"
    key = ("" if node.domain in roles.STANDARD else node.domain, node.op_type)
    if key in NORMALIZATIONS and value is node.outputs[0]:
        return _in_normalization(node, NORMALIZATIONS[key], channels)
    if key[0] != "":
        return f"{node.op_type} cannot take a scale up"
    if node.op_type in ("MatMul", "Gemm"):
        return _in_linear(node, channels)
    if node.op_type in HOMOGENEOUS:
        return _through(node.inputs[0], channels)
    if node.op_type in ("Mul", "Add"):
        return _in_elementwise(node, channels)
    return f"{node.op_type} cannot take a scale up"


def _through(value: ir.Value | None, channels: int) -> list[_Edit] | str:
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return "a value before it is read elsewhere too"
    return _absorbing(value, channels)


def _in_normalization(node: ir.Node, indices: tuple[int, ...], channels: int) -> list[_Edit] | str:
    edits = [_Edit(node, i) for i in indices if i < len(node.inputs) and node.inputs[i] is not None]
    arrays = [float_constant(edit.node.inputs[edit.index]) for edit in edits]
    if not edits or any(array is None or array.shape != (channels,) for array in arrays):
        return f"the scale or bias of {node.op_type} is not a constant vector"
    return edits


def _in_linear(node: ir.Node, channels: int) -> list[_Edit] | str:
    weight = float_constant(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return f"{node.op_type} before it has no constant matrix"
    axis = roles.channel_axis(node, 2)
    if weight.shape[axis] != channels:
        return f"{node.op_type} before it has other channels"
    edits = [_Edit(node, 1, axis)]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        if float_constant(node.inputs[2]) is None:
            return f"the bias of {node.op_type} before it is not constant"
        edits.insert(0, _Edit(node, 2))
    return edits


def _in_elementwise(node: ir.Node, channels: int) -> list[_Edit] | str:
    """A product or a sum with a constant that lies along the last axis, or a product of two activations."""
    arrays = [float_constant(value) for value in node.inputs]
    for index, array in enumerate(arrays):
        if array is None:
            continue
        if array.size not in (1, channels) or (array.ndim and array.size != array.shape[-1]):
            return f"the constant of {node.op_type} does not lie along the channels"
        if node.op_type == "Mul":
            return [_Edit(node, index)]
        rest = _through(node.inputs[1 - index], channels)
        return rest if isinstance(rest, str) else [_Edit(node, index), *rest]
    if node.op_type == "Add":
        return "Add of two activations cannot take a scale up"
    outcomes = [_through(value, channels) for value in node.inputs if value is not None and _spans(value, channels)]
    return next((found for found in outcomes if isinstance(found, list)), "no factor of Mul can take a scale up")


def _spans(value: ir.Value, channels: int) -> bool:
    """Its last axis is known to be the channels (a factor of width 1 cannot carry them)."""
    return value.shape is not None and len(value.shape) > 0 and value.shape[-1] == channels
