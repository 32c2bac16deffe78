"""How much the model's outputs suffer when one layer alone is pruned: what sensitivity-based allocation goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.errors import DataError
from onnxcompress.evaluation import relative_error
from onnxcompress.passes.prune import Layer, Point, make_masks, weight_of
from onnxcompress.passes.prune.allocation import MOST_REMOVED
from onnxcompress.progress import Progress, silent
from onnxcompress.runtime.session import open_session

Array = np.ndarray[Any, Any]

SPARSITIES = (0.3, 0.5, 0.65, 0.8, 0.9, MOST_REMOVED)
FEEDS = 8


def error_curves(
    model: ir.Model,
    layers: Sequence[Layer],
    saliency: Mapping[str, Array],
    pattern: str,
    data: DataSet,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    threads: int = 0,
    progress: Progress = silent,
) -> dict[str, list[Point]]:
    """The squared relative error of the outputs with one layer pruned, by layer name.

    Args:
        model: unchanged.
        saliency: which of a layer's weights go first; they are not compensated.
        data: its first feeds are used.

    Raises:
        DataError: no feeds, or one that does not fit.
    """
    feeds = list(data.take(0, FEEDS))
    if not feeds:
        raise DataError(f"{data.name}: no feeds; sensitivity needs at least one")
    opened = model.clone()
    for layer in layers:  # an initializer that is an input too can be given anew at every run
        opened.graph.inputs.append(opened.graph.initializers[layer.weight])
    session = open_session(opened, threads=threads)
    wanted = [session.run(None, feed) for feed in feeds]
    curves: dict[str, list[Point]] = {}
    for index, layer in enumerate(layers):
        progress("sensitivity of layers", index, len(layers))
        weight, points = weight_of(model, layer), []
        for sparsity in sparsities:
            (mask,) = make_masks(model, [layer], saliency, pattern, sparsity).values()
            pruned = {layer.weight: np.where(mask, weight, np.float32(0))}
            errors = [
                relative_error(y, session.run(None, {**feed, **pruned})) ** 2
                for y, feed in zip(wanted, feeds, strict=True)
            ]
            points.append(Point(sparsity, float(np.mean(errors))))
        curves[layer.name] = points
    return curves
