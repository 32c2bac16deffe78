"""Cross-layer equalization: giving the channels between two layers equal weight ranges, without data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize import roles
from onnxcompress.passes.quantize.constants import float_constant, replace_constant
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.simplify.editor import Editor

Array = np.ndarray[Any, Any]

LAYERS = ("Conv", "Gemm")

COMMUTING = {
    "Relu", "LeakyRelu", "PRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten",
}  # fmt: skip
"""f(s x) = s f(x) for s > 0 per channel; padding is with zeros, or with what a maximum never gives."""

CONVERGED = 1e-3
"""A sweep whose scales all lie closer to 1 is the last."""

SWEEPS = 100

DEAD = 1e-6
"""Channels whose weights lie below this share of the layer's largest are left as they are: scaling them up
would blow up what they add to a bias."""


class EqualizeChannels(ir.passes.InPlacePass):
    """Scale the channels between two layers so that both have equal weight ranges in them.

    W1_i / s_i, b1_i / s_i and s_i W2_i with s_i = sqrt(r1_i r2_i) / r2_i, r the largest magnitude of channel i
    (Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019, equation 11),
    swept over all pairs until nothing changes. The model computes the same in float.

    1. The first layer is a Conv or Gemm with a constant weight and a constant vector (or no) bias.
    2. Between them: Relu, LeakyRelu, PRelu, Identity, pooling, and Flatten from axis 1, each the only reader of
       the value before it. Clip, Relu6, Sigmoid and the like do not commute with a scale.
    3. The second is a Conv of any number of groups (depthwise too) or a Gemm without transA, with a constant
       weight, as its first input.

    Main graph only: a layer in a subgraph stays. A shared weight is split for its layer.

    Attributes:
        decisions: for every Conv and Gemm: whether it was paired with the layer after it, else why not; set by
            the call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        layers: dict[ir.Node, _Layer] = {}
        pairs: list[tuple[_Layer, _Layer]] = []
        self.decisions = []
        for node in model.graph:
            if node.op_type not in LAYERS or node.domain not in roles.STANDARD:
                continue
            found = _pair(node, layers)
            if not isinstance(found, str):
                pairs.append(found)
            reason = found if isinstance(found, str) else f"equalized with {found[1].node.name}"
            self.decisions.append(
                Decision(node.name or node.outputs[0].name or "", node.op_type, not isinstance(found, str), reason)
            )
        for _ in range(SWEEPS):
            if max((_equalize(*pair) for pair in pairs), default=0.0) < CONVERGED:
                break
        editor = Editor(model)
        for layer in layers.values():
            layer.write(editor)
        return ir.passes.PassResult(model, modified=editor.changes > 0)


class _Layer:
    """A layer whose channels are scaled; its arrays are written back at the end."""

    def __init__(self, node: ir.Node, weight: Array, bias: Array | None) -> None:
        self.node = node
        self.weight = weight.astype(np.float64)
        self.bias = None if bias is None else bias.astype(np.float64)
        self.changed: set[int] = set()
        transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0
        self._inputs_last = node.op_type == "Conv" or transposed
        self._groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1

    @property
    def _rows(self) -> Array:
        """A view `[groups, outputs, inputs, rest]` of the weight."""
        matrix = self.weight if self._inputs_last else self.weight.T
        groups = self._groups
        return matrix.reshape(groups, matrix.shape[0] // groups, matrix.shape[1], -1)

    @property
    def outputs(self) -> int:
        rows = self._rows
        return int(rows.shape[0] * rows.shape[1])

    def output_ranges(self) -> Array:
        """Largest magnitude of each output channel."""
        ranges: Array = np.abs(self._rows).max(axis=(2, 3)).reshape(-1)
        return ranges

    def input_ranges(self, channels: int) -> Array:
        """Largest magnitude of what meets each of the input channels (a flattened channel is several inputs)."""
        each = np.abs(self._rows).max(axis=(1, 3)).reshape(channels, -1)
        ranges: Array = each.max(axis=1)
        return ranges

    def accepts(self, channels: int) -> bool:
        rows = self._rows
        count = int(rows.shape[0] * rows.shape[2])
        return count == channels if self.node.op_type == "Conv" else count % channels == 0

    def scale_outputs(self, scales: Array) -> None:
        rows = self._rows
        self._set(rows * scales.reshape(rows.shape[0], rows.shape[1], 1, 1))
        if self.bias is not None:
            self.bias = self.bias * scales
            self.changed.add(2)

    def scale_inputs(self, scales: Array) -> None:
        rows = self._rows
        each = np.repeat(scales, rows.shape[0] * rows.shape[2] // len(scales))
        self._set(rows * each.reshape(rows.shape[0], 1, rows.shape[2], 1))

    def write(self, editor: Editor) -> None:
        for index in self.changed:
            array = self.weight if index == 1 else self.bias
            assert array is not None
            replace_constant(editor, self.node, index, array.astype(np.float32))

    def _set(self, rows: Array) -> None:
        shape = self.weight.shape if self._inputs_last else self.weight.shape[::-1]
        matrix = rows.reshape(shape)
        self.weight = matrix if self._inputs_last else matrix.T
        self.changed.add(1)


def _equalize(first: _Layer, second: _Layer) -> float:
    """Scale one pair; gives the largest |log s|."""
    before = first.output_ranges()
    after = second.input_ranges(len(before))
    alive = (before > DEAD * before.max(initial=0)) & (after > DEAD * after.max(initial=0))
    scales = np.ones_like(before)
    scales[alive] = np.sqrt(before[alive] / after[alive])
    change = float(np.max(np.abs(np.log(scales)), initial=0))
    if change >= CONVERGED:
        first.scale_outputs(1 / scales)
        second.scale_inputs(scales)
    return change


def _pair(node: ir.Node, layers: dict[ir.Node, _Layer]) -> tuple[_Layer, _Layer] | str:
    """A layer with the one after it, or why there is none; cases 1 to 3."""
    first = _layer(node, layers)
    if isinstance(first, str):
        return first
    if first.bias is not None and first.bias.shape != (first.outputs,):
        return "its bias is not a vector of its channels"
    value = node.outputs[0]
    flat = node.op_type == "Gemm"
    for user in _followers(value):
        if isinstance(user, str):
            return user
        if user.op_type in LAYERS and user.domain in roles.STANDARD:
            return _second(first, user, flat, layers)
        reason = _commutes(user, first.outputs, flat)
        if reason is not None:
            return reason
        flat = flat or user.op_type == "Flatten"
    return "nothing reads its output"


def _followers(value: ir.Value) -> Iterable[ir.Node | str]:
    """The nodes after a value, as long as each is the only reader of the last; then why that ends."""
    while True:
        if value.is_graph_output():
            yield "its output is an output of the model"
        uses = value.uses()
        if len(uses) != 1:
            yield f"its output is read {len(uses)} times"
            return
        (use,) = uses
        if use.idx != 0:
            yield f"its output is not the first input of {use.node.op_type} {use.node.name or ''}".rstrip()
        yield use.node
        value = use.node.outputs[0]


def _commutes(node: ir.Node, channels: int, flat: bool) -> str | None:
    """Why an operator between two layers does not let a scale per channel through, or None if it does."""
    if node.op_type not in COMMUTING or node.domain not in roles.STANDARD:
        return f"{node.op_type} after it does not commute with a scale"
    if len(node.outputs) > 1:
        return f"{node.op_type} after it has more than one output"
    if node.op_type == "Flatten" and node.attributes.get_int("axis", 1) != 1:
        return "Flatten after it mixes channels and samples"
    return "pooling after it mixes channels" if flat and "Pool" in node.op_type else None


def _second(first: _Layer, node: ir.Node, flat: bool, layers: dict[ir.Node, _Layer]) -> tuple[_Layer, _Layer] | str:
    if node.graph is not first.node.graph:
        return "its reader lies in a subgraph"
    if flat != (node.op_type == "Gemm"):
        return f"{node.op_type} after it reads its channels along another axis"
    second = _layer(node, layers)
    if isinstance(second, str):
        return f"the {node.op_type} after it cannot take a scale: {second}"
    if not second.accepts(first.outputs):
        return f"the {node.op_type} after it has other channels"
    return first, second


def _layer(node: ir.Node, layers: dict[ir.Node, _Layer]) -> _Layer | str:
    if node in layers:
        return layers[node]
    weight = float_constant(node.inputs[1])
    if weight is None or weight.size == 0:
        return "its weight is not a constant float32"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array = float_constant(bias)
    if bias is not None and array is None:
        return "its bias is not constant"
    if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0:
        return "Gemm with transA"
    layers[node] = _Layer(node, weight, array)
    return layers[node]
