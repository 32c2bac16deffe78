"""What SmoothQuant and bias correction need to know of each channel, measured on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.calibration import ChannelObserver, ChannelStatistics, stream
from onnxcompress.calibration.taps import computed_values
from onnxcompress.data import DataSet
from onnxcompress.errors import CalibrationError
from onnxcompress.passes.lower import attention_tensors
from onnxcompress.passes.quantize import roles
from onnxcompress.passes.quantize.smooth import NORMALIZATIONS
from onnxcompress.progress import Progress, silent

Array = np.ndarray[Any, Any]

CORRECTION_FEEDS = 32
"""Means settle with few samples: every position of every feed counts."""


def smoothing_statistics(
    model: ir.Model, data: DataSet, *, threads: int = 0, progress: Progress = silent
) -> dict[str, Array]:
    """max|x| per channel, `[channels]`, of every normalization's output that a MatMul or Gemm multiplies.

    Only those, as in the paper: their outliers sit in a few channels whatever the input. Smoothing the outputs
    of GELU as well makes MiniLM worse than not smoothing at all (cosine 0.992 against 0.996; 0.994 without).
    """
    tensors = {}
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        if node.op_type not in ("MatMul", "Gemm") or node.domain not in roles.STANDARD or source is None:
            continue
        if roles.weight_index(node) == 1 and not node.attributes.get_int("transA", 0) and _is_normalized(source):
            tensors[source.name or ""] = -1
    found = _statistics(model, data, tensors, threads, progress)
    return {name: statistics.max_abs for name, statistics in found.items()}


def _is_normalized(value: ir.Value) -> bool:
    node = value.producer()
    if node is None or value is not node.outputs[0]:
        return False
    return ("" if node.domain in roles.STANDARD else node.domain, node.op_type) in NORMALIZATIONS


def head_magnitudes(
    model: ir.Model, data: DataSet, *, threads: int = 0, progress: Progress = silent
) -> dict[str, tuple[float, ...]]:
    """max|x| per channel of queries, keys and values: what `LowerNative` takes as `heads`."""
    found = _statistics(model, data, dict.fromkeys(attention_tensors(model), -1), threads, progress)
    return {name: tuple(map(float, statistics.max_abs.astype(np.float32))) for name, statistics in found.items()}


def mean_errors(
    model: ir.Model, quantized: ir.Model, data: DataSet, *, threads: int = 0, progress: Progress = silent
) -> dict[str, Array]:
    """The mean error that quantizing a node's weight adds to its output, per channel: what `CorrectBias` takes.

    E[(Wq - W) x] as it is measured (borders of convolutions and rounding of biases included), with x of the
    float model: beside each node stands its quantized twin, which reads the same input. Comparing the outputs
    of the two models would count each error again in every layer after it, which correcting all biases at once
    then overdoes.

    Args:
        model: the float model.
        quantized: made from it by `InsertQDQ`; nodes have kept their names.
        data: the first 32 feeds are used.

    Returns:
        mean of (quantized - float), float64 `[channels]`, by node name.
    """
    both = model.clone()
    twins = _add_twins(both, quantized)
    tensors: dict[str, int] = {}
    for node, twin in twins.items():
        axis = 1 if node.op_type == "Conv" else -1
        tensors |= {node.outputs[0].name or "": axis, twin.outputs[0].name or "": axis}
    found = _statistics(both, data.take(0, CORRECTION_FEEDS), tensors, threads, progress)
    errors = {}
    for node, twin in twins.items():
        wanted, got = (found.get(n.outputs[0].name or "") for n in (node, twin))
        if wanted is not None and got is not None:
            errors[node.name or ""] = got.mean - wanted.mean
    return errors


def _statistics(
    model: ir.Model, data: DataSet, tensors: Mapping[str, int], threads: int, progress: Progress
) -> dict[str, ChannelStatistics]:
    """By name and axis; a tensor that was empty in every sample is left out, as is one that no input reaches."""
    known = computed_values(model.graph)
    observers = {name: ChannelObserver(axis) for name, axis in tensors.items() if name in known}
    if not observers:
        return {}
    stream(model, data, observers, threads=threads, progress=progress)
    found = {}
    for name, observer in observers.items():
        try:
            found[name] = observer.statistics()
        except CalibrationError:
            continue
    return found


def _add_twins(model: ir.Model, quantized: ir.Model) -> dict[ir.Node, ir.Node]:
    """Put a twin with the quantized weight beside every node that `quantized` computes in int8; by node."""
    others = {node.name: node for node in quantized.graph if node.op_type in roles.COMPUTE}
    twins = {}
    for node in list(model.graph):
        other = others.get(node.name)
        if other is None or other.op_type != node.op_type:
            continue
        if _dequantizer(other.inputs[0]) is not None and _dequantizer(other.inputs[1]) is not None:
            twins[node] = _add_twin(model.graph, node, other)
    return twins


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _add_twin(graph: ir.Graph, node: ir.Node, other: ir.Node) -> ir.Node:
    stem = f"{node.name}/quantized"
    inputs = [*node.inputs, *[None] * (len(other.inputs) - len(node.inputs))]
    for index, value in enumerate(other.inputs[1:], start=1):
        part = _dequantizer(value)
        if part is not None:
            constants = [_copied(graph, v, f"{stem}/{index}/{i}") for i, v in enumerate(part.inputs)]
            made = _inserted(graph, node, part, constants, f"{stem}/{index}")
            inputs[index] = made.outputs[0]
    return _inserted(graph, node, node, inputs, stem)


def _inserted(graph: ir.Graph, before: ir.Node, like: ir.Node, inputs: Sequence[ir.Value | None], name: str) -> ir.Node:
    """A node of the kind of `like` with other inputs."""
    made = ir.Node(like.domain, like.op_type, inputs, list(like.attributes.values()), num_outputs=1, name=name)
    made.outputs[0].name = f"{name}/output"
    graph.insert_before(before, made)
    return made


def _copied(graph: ir.Graph, value: ir.Value | None, name: str) -> ir.Value:
    assert value is not None and value.const_value is not None
    copy = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
    graph.register_initializer(copy)
    return copy
