"""What removing each weight costs, about: from the weights alone, or from what their layers read.

Gradient-based saliency of the same form is in `onnxcompress.torch.saliency`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.passes.prune import Layer, from_matrix, layer_nodes, to_matrix, weight_of
from onnxcompress.progress import Progress, silent
from onnxcompress.solvers.least_squares import damped
from onnxcompress.solvers.moments import Moments
from onnxcompress.solvers.sequential import divide, observe_moments, solvable

Array = np.ndarray[Any, Any]


def magnitude_saliency(model: ir.Model, layers: Sequence[Layer]) -> dict[str, Array]:
    """w^2, by initializer, float32 of its shape: summed over a block, its squared norm."""
    return {layer.weight: np.square(weight_of(model, layer)) for layer in layers}


def wanda_saliency(
    model: ir.Model, layers: Sequence[Layer], data: DataSet, *, threads: int = 0, progress: Progress = silent
) -> dict[str, Array]:
    """w^2 E[x^2], by initializer, float32 of its shape: what a weight alone adds to its output's energy.

    The square of |w| ||x|| (Sun et al., A Simple and Effective Pruning Approach for LLMs, 2023): the same order, and
    it adds up over blocks.
    """
    power = input_power(model, layers, data, threads=threads, progress=progress)
    return {name: scores * power[name] for name, scores in magnitude_saliency(model, layers).items()}


def input_power(
    model: ir.Model, layers: Sequence[Layer], data: DataSet, *, threads: int = 0, progress: Progress = silent
) -> dict[str, Array]:
    """E[x^2] of what each weight is multiplied by, by initializer, float32 of its shape; 1 where it is not measured."""

    def measure(weight: Array, moments: Moments) -> Array:
        return np.broadcast_to(np.diagonal(moments.second, axis1=1, axis2=2)[:, None, :], weight.shape)

    return _from_moments(model, layers, data, measure, np.ones_like, threads, progress)


def obs_saliency(
    model: ir.Model, layers: Sequence[Layer], data: DataSet, *, threads: int = 0, progress: Progress = silent
) -> dict[str, Array]:
    """w^2 / (H^-1)_ii, by initializer, float32 of its shape: the output's error when the layer's others make up for it.

    (Hassibi & Stork, Optimal Brain Surgeon, 1992, without the factor 1/2), H the damped second moments of what the
    layer reads.
    """

    def measure(weight: Array, moments: Moments) -> Array:
        inverse = np.linalg.inv(damped(moments.second))
        scores: Array = np.square(weight) / np.diagonal(inverse, axis1=1, axis2=2)[:, None, :]
        return scores

    return _from_moments(model, layers, data, measure, np.square, threads, progress)


def _from_moments(
    model: ir.Model,
    layers: Sequence[Layer],
    data: DataSet,
    measure: Callable[[Array, Moments], Array],
    unmeasured: Callable[[Array], Array],
    threads: int,
    progress: Progress,
) -> dict[str, Array]:
    """A measure of each layer [G, N / G, K], of the model as it is; `unmeasured` of one with too many inputs."""
    saliency = {layer.weight: unmeasured(weight_of(model, layer)) for layer in layers if solvable(layer) is not None}
    for stage in divide([layer for layer in layers if solvable(layer) is None], 1):
        nodes: Mapping[Layer, ir.Node] = dict(layer_nodes(model, stage))
        found = observe_moments(model, nodes, data, threads=threads, progress=progress)
        for layer, node in nodes.items():
            array = weight_of(model, layer)
            matrix = to_matrix(array, node).astype(np.float64).reshape(layer.groups, -1, layer.inputs)
            scores = measure(matrix, found[layer.name]).reshape(-1, layer.inputs).astype(np.float32)
            saliency[layer.weight] = from_matrix(scores, node, array.shape)
    return saliency
