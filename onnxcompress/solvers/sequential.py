"""Solving a model layer by layer: each layer on what it reads once the layers before it are changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.calibration import Observing, stream
from onnxcompress.data import DataSet
from onnxcompress.passes.prune import Layer, from_matrix, layer_nodes, to_matrix
from onnxcompress.passes.quantize import CorrectBias, roles
from onnxcompress.progress import Progress, silent
from onnxcompress.solvers.moments import MomentObserver, Moments, SeveralObservers
from onnxcompress.solvers.patches import Patches, Rows, input_rows

Array = np.ndarray[Any, Any]
Solve = Callable[[Layer, Array, Array], Array]
"""From a layer, its weight [G, N / G, K] and the second moments [G, K, K] that count, to the new weight, likewise."""

SAMPLES = 128
"""Feeds that a solver sees: moments settle with few."""

MOST_PASSES = 24
"""Over the data. In a deeper model neighbouring layers share a pass, and do not see each other's changes."""

MOMENT_BYTES = 1 << 30
"""Of moments held at a time."""

MOST_INPUTS = 8192
"""Of a layer that is solved: its moments take 0.5 GB."""


def solvable(layer: Layer) -> str | None:
    """Why a layer is not solved, or None if it is."""
    if layer.inputs > MOST_INPUTS:
        return f"its {layer.inputs} inputs are too many for their second moments"
    return None


def solve_layers(
    model: ir.Model,
    layers: Sequence[Layer],
    data: DataSet,
    solve: Solve,
    *,
    correct_bias: bool = True,
    most_passes: int = MOST_PASSES,
    threads: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, int]:
    """Replace the weights of layers, in the order of the graph; the model is changed in place.

    Layers that read the same value share its moments and are solved together. Where a bias can take it up, the mean
    of what a layer reads is left to the bias: weights are solved on the covariance, and the bias is moved by
    (W - W') E[x].

    Args:
        model: optimized; changed.
        layers: of it, from `find_layers`; those that `solvable` accepts.
        data: feeds; all are used, in each pass.
        solve: called once a layer, in graph order.
        correct_bias: False leaves biases alone.
        most_passes: over the data.
        seed: of the rows drawn from samples that have many.

    Returns:
        how many rows each layer was solved on, by its name.

    Raises:
        CalibrationError: activations that are not finite, no feeds.
        DataError: feeds that do not fit the model.
    """
    stages = divide(layers, most_passes)
    rows: dict[str, int] = {}
    for index, stage in enumerate(stages):
        progress("solving layers", index, len(stages))
        nodes = dict(layer_nodes(model, stage))
        found = observe_moments(model, nodes, data, threads=threads, seed=seed)
        errors = {}
        for layer, node in nodes.items():
            moments = found[layer.name]
            rows[layer.name] = moments.rows
            centred = correct_bias and takes_bias(node)
            change = _replace(layer, node, moments, centred, solve)
            if centred:
                errors[layer.name] = (change @ moments.mean[:, :, None]).reshape(-1)
        if errors:
            CorrectBias(errors)(model)
    progress("solving layers", len(stages), len(stages))
    return rows


def observe_moments(
    model: ir.Model,
    nodes: Mapping[Layer, ir.Node],
    data: DataSet,
    *,
    threads: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Moments]:
    """The moments of what each layer reads, by its name; layers that read one value alike share theirs.

    Raises:
        CalibrationError: activations that are not finite, no feeds.
    """
    made: dict[tuple[str, Rows | Patches], MomentObserver] = {}
    for layer, node in nodes.items():
        made.setdefault((layer.input, input_rows(node)), MomentObserver(input_rows(node), seed))
    by_value: dict[str, list[MomentObserver]] = {}
    for (value, _), observer in made.items():
        by_value.setdefault(value, []).append(observer)
    observers: dict[str, Observing] = {value: SeveralObservers(several) for value, several in by_value.items()}
    stream(model, data, observers, threads=threads, progress=progress)
    return {layer.name: made[layer.input, input_rows(node)].moments() for layer, node in nodes.items()}


def divide(layers: Sequence[Layer], most: int | None = None, limit: int = MOMENT_BYTES) -> list[list[Layer]]:
    """Layers in groups that are solved in one pass: those that read one value, in at most `most` groups.

    Neighbours are put together to come down to `most`; a group whose moments exceed `limit` bytes is divided again.
    """
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.input, []).append(layer)
    parts = list(groups.values())
    count = len(parts) if most is None else min(most, len(parts))
    stages: list[list[Layer]] = []
    last, held = -1, 0
    for index, part in enumerate(parts):
        stage = index * count // len(parts)
        needed = max(8 * layer.groups * layer.inputs**2 for layer in part)
        if stage != last or held + needed > limit:
            stages.append([])
            last, held = stage, 0
        stages[-1] += part
        held += needed
    return stages


def scarcity(layers: Sequence[Layer], rows: Mapping[str, int]) -> list[str]:
    """A note where layers were solved on fewer rows than they have inputs; `rows` by layer name."""
    short = [layer for layer in layers if rows[layer.name] < layer.inputs]
    if not short:
        return []
    first = min(short, key=lambda layer: rows[layer.name] / layer.inputs)
    return [
        f"{len(short)} layers were solved on fewer rows than they have inputs ({first.name}: {rows[first.name]} of "
        f"{first.inputs}): give more data"
    ]


def takes_bias(node: ir.Node) -> bool:
    """Whether a layer's bias can be moved without a new node: Conv and Gemm have one, a MatMul an Add after it."""
    if node.op_type == "MatMul":
        follower = roles.only_consumer(node.outputs[0])
        if follower is None or follower.op_type != "Add" or follower.domain not in roles.STANDARD:
            return False
        return any(roles.is_constant(value) and _is_vector(value) for value in follower.inputs)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return plain and (bias is None or (roles.is_constant(bias) and (node.op_type == "Conv" or _is_vector(bias))))


def _is_vector(value: ir.Value | None) -> bool:
    """[N], or [1, .., N]: the same for all rows."""
    if value is None or value.const_value is None or not value.const_value.shape:
        return False
    return all(size == 1 for size in value.const_value.shape[:-1])


def _replace(layer: Layer, node: ir.Node, moments: Moments, centred: bool, solve: Solve) -> Array:
    """Give a layer its new weight; the change, float64 [G, N / G, K]."""
    value = node.inputs[1]
    assert value is not None and value.const_value is not None
    array = value.const_value.numpy()
    weight = to_matrix(array, node).astype(np.float64).reshape(layer.groups, -1, layer.inputs)
    new = solve(layer, weight, moments.centred if centred else moments.second)
    stored = from_matrix(new.reshape(-1, layer.inputs).astype(np.float32), node, array.shape)
    value.const_value = ir.tensor(stored, name=value.name)
    change: Array = to_matrix(stored, node).astype(np.float64).reshape(weight.shape) - weight
    return change
