"""Bias correction: taking the mean error that quantization adds to a layer's output out of its bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize import arithmetic, roles
from onnxcompress.passes.quantize.constants import float_constant, replace_constant
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.simplify.editor import Editor

Array = np.ndarray[Any, Any]

INT32 = np.iinfo(np.int32)


class CorrectBias(ir.passes.InPlacePass):
    """Subtract the mean error of each output channel from the bias (Nagel et al., 2019, section 4.2).

    1. Conv, Gemm (beta 1): a constant float bias; where there is none, one is made.
    2. Conv, Gemm in the QDQ form, whose bias is a DequantizeLinear of int32: the integers change, rounded and
       saturated. Where there is none, and the input and the weight are dequantized with constant scales, an
       int32 one is made with their product as its scale.
    3. MatMul: the constant of the Add that alone reads it; where there is none, an Add is made.

    The main graph only. A bias that other nodes read too is split.

    Args:
        errors: mean of (quantized output - float output) per output channel, `[channels]`, by the node's name
            (the node's own output: before an Add that follows a MatMul, which makes no difference).

    Attributes:
        decisions: for each of these nodes, whether its bias was corrected, and how or why not; set by the call.

    Raises:
        ValueError: an error that is not a finite vector of the layer's channels, or of a node that the main
            graph does not have.
    """

    def __init__(self, errors: Mapping[str, Array]) -> None:
        super().__init__()
        self.errors = {name: np.asarray(error, np.float64) for name, error in errors.items()}
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = {node.name or node.outputs[0].name or "": node for node in model.graph}
        missing = sorted(name for name in self.errors if name not in nodes)
        if missing:
            raise ValueError(f"an error of node {missing[0]!r}, which the main graph does not have")
        for name, error in self.errors.items():
            if error.ndim != 1 or not np.all(np.isfinite(error)):
                raise ValueError(f"the error of {name!r} must be one finite number per channel")
        editor = Editor(model)
        self.decisions = []
        for name, error in self.errors.items():
            node = nodes[name]
            done, reason = _correct(node, error, editor) if np.any(error) else (False, "it has no error")
            self.decisions.append(Decision(name, node.op_type, done, reason))
        return ir.passes.PassResult(model, modified=editor.changes > 0)


def expected_weight_error(weight: Array, scales: Array, axis: int, input_mean: Array, *, limit: int = 127) -> Array:
    """E[(Wq - W) x] per output channel: what quantizing the weight alone adds to a layer's mean output.

    For a convolution the channel's mean stands for every position, so borders padded with zeros are counted
    as if they were not.

    Args:
        weight: float `[N, K]` (axis 0) or `[K, N]` (axis 1), or of a Conv, `[N, K / groups, ...]` (axis 0).
        scales: symmetric scale of each output channel, `[N]`.
        axis: the output channels.
        input_mean: E[x] of each input channel, `[K]`; a Conv's groups follow from its length.
        limit: the largest magnitude of a quantized weight.

    Returns:
        float64 `[N]`.

    Raises:
        ValueError: the means do not fit the weight.
    """
    integers = arithmetic.quantize_weight(weight, scales, axis, limit)
    error = arithmetic.dequantize_weight(integers, scales, axis).astype(np.float64) - weight
    rows = np.moveaxis(error, axis, 0)
    rows = rows.reshape(rows.shape[0], rows.shape[1], -1).sum(axis=2)
    groups, rest = divmod(input_mean.size, rows.shape[1])
    if input_mean.ndim != 1 or rest or not groups or rows.shape[0] % groups:
        raise ValueError(f"{input_mean.size} means do not fit a weight of shape {weight.shape}")
    means = input_mean.astype(np.float64).reshape(groups, 1, -1)
    result: Array = (rows.reshape(groups, -1, rows.shape[1]) * means).sum(axis=2).reshape(-1)
    return result


def _correct(node: ir.Node, error: Array, editor: Editor) -> tuple[bool, str]:
    """Whether the bias of one node was corrected, and how or why not."""
    if node.domain not in roles.STANDARD or node.op_type not in roles.COMPUTE:
        return False, f"{node.op_type} has no bias to correct"
    channels = _channels(node)
    if channels is not None and channels != len(error):
        raise ValueError(f"the error of {node.name!r} has {len(error)} channels, the layer {channels}")
    if node.op_type == "MatMul":
        return _correct_sum(node, error, editor)
    if node.op_type == "Gemm" and node.attributes.get_float("beta", 1.0) != 1.0:
        return False, "Gemm with beta other than 1"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return _make_bias(node, error, editor)
    producer = bias.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return _correct_integers(node, producer, error, editor)
    array = float_constant(bias)
    if array is None:
        return False, "its bias is not constant"
    replace_constant(editor, node, 2, (array - error).astype(np.float32))
    return True, "its bias was corrected"


def _correct_sum(node: ir.Node, error: Array, editor: Editor) -> tuple[bool, str]:
    out = node.outputs[0]
    follower = roles.only_consumer(out)
    if follower is not None and follower.op_type == "Add" and follower.domain in roles.STANDARD:
        index = 1 if follower.inputs[0] is out else 0
        array = float_constant(follower.inputs[index])
        if array is not None and array.size and (array.ndim == 0 or array.shape[-1] in (1, len(error))):
            replace_constant(editor, follower, index, (array - error).astype(np.float32))
            return True, "the constant of the Add after it was corrected"
    graph, old = node.graph, out.name
    assert graph is not None
    correction = editor.constant((-error).astype(np.float32), f"{old}/correction")
    total = ir.node("Add", [out, correction], name=editor.fresh(f"{old}/correct"))
    total.outputs[0].name, total.outputs[0].type = editor.fresh(f"{old}/corrected"), out.type
    total.outputs[0].shape = out.shape
    uses = out.uses()
    graph.insert_after(node, total)
    for use in uses:
        if use.node is not total:
            use.node.replace_input_with(use.idx, total.outputs[0])
    if out.is_graph_output():
        for i, output in enumerate(graph.outputs):
            if output is out:
                graph.outputs[i] = total.outputs[0]
        out.name, total.outputs[0].name = total.outputs[0].name, old
    editor.changes += 1
    return True, "an Add was made after it"


def _correct_integers(node: ir.Node, producer: ir.Node, error: Array, editor: Editor) -> tuple[bool, str]:
    stored, scale = producer.inputs[0], float_constant(producer.inputs[1])
    integral = stored is not None and stored.is_initializer() and stored.const_value is not None
    if not integral or scale is None or stored.const_value.dtype != ir.DataType.INT32:  # type: ignore[union-attr]
        return False, "its bias is not a constant int32"
    integers = stored.const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    changed = np.clip(np.rint(integers - error / scale.astype(np.float64)), INT32.min, INT32.max)
    if producer.outputs[0].is_graph_output() or len(producer.outputs[0].uses()) > 1:
        copy = editor.insert(
            "DequantizeLinear", list(producer.inputs), dict(producer.attributes), before=producer,
            like=producer.outputs[0],
        )  # fmt: skip
        editor.set_input(node, 2, copy.outputs[0])
        producer = copy
    replace_constant(editor, producer, 0, changed.astype(np.int32))
    return True, "its int32 bias was corrected"


def _make_bias(node: ir.Node, error: Array, editor: Editor) -> tuple[bool, str]:
    sources = [value.producer() if value is not None else None for value in node.inputs[:2]]
    if not any(source is not None and source.op_type == "DequantizeLinear" for source in sources[1:]):
        editor.set_input(node, 2, editor.constant((-error).astype(np.float32), f"{node.name}/bias"))
        return True, "a bias was made"
    scales = [
        float_constant(source.inputs[1]) if source is not None and source.op_type == "DequantizeLinear" else None
        for source in sources
    ]
    if scales[0] is None or scales[1] is None or scales[0].size != 1:
        return False, "its input and weight have no constant scales to make a bias from"
    scale = np.broadcast_to((scales[0].reshape(()) * scales[1]).astype(np.float32), error.shape)
    integers = np.clip(np.rint(-error / scale.astype(np.float64)), INT32.min, INT32.max).astype(np.int32)
    stem = f"{node.name}/bias"
    constants = [
        editor.constant(array, f"{stem}/{part}")
        for part, array in (
            ("quantized", integers),
            ("scale", np.ascontiguousarray(scale)),
            ("zero_point", np.zeros(error.shape, np.int32)),
        )
    ]
    made = editor.insert("DequantizeLinear", constants, {"axis": 0}, before=node, stem=stem)
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(error.shape)
    editor.set_input(node, 2, made.outputs[0])
    return True, "an int32 bias was made"


def _channels(node: ir.Node) -> int | None:
    weight = node.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) < 2:
        return None
    size = weight.shape[roles.channel_axis(node, len(weight.shape))]
    return size if isinstance(size, int) else None
