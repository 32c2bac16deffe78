"""Saliency by its name, for `prune`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.passes.prune import Layer
from onnxcompress.progress import Progress
from onnxcompress.pruning.options import Options, Saliency
from onnxcompress.solvers import magnitude_saliency, obs_saliency, wanda_saliency

Array = np.ndarray[Any, Any]

LOCAL: tuple[Saliency, ...] = ("magnitude", "wanda", "obs")
"""Measured within a layer, in its own units: not to be compared between layers as they are."""


def measure_saliency(
    model: ir.Model,
    layers: Sequence[Layer],
    kind: Saliency,
    data: DataSet | None,
    options: Options,
    progress: Progress,
) -> dict[str, Array]:
    """What removing each weight of the layers costs, by initializer.

    Raises:
        CompressError: the data does not fit, or (taylor, fisher) torch is not installed or lacks an operator.
    """
    if kind == "magnitude":
        return magnitude_saliency(model, layers)
    assert data is not None
    feeds = data.take(0, options.samples)
    if kind in ("wanda", "obs"):
        measure = wanda_saliency if kind == "wanda" else obs_saliency
        return measure(model, layers, feeds, threads=options.threads, progress=progress)
    return _by_gradients(model, kind, feeds, options, progress)


def _by_gradients(
    model: ir.Model, kind: Saliency, feeds: DataSet, options: Options, progress: Progress
) -> dict[str, Array]:
    from onnxcompress.errors import CompressError

    try:
        from onnxcompress.torch.saliency import gradient_saliency
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise CompressError(
            f"the saliency {kind} needs PyTorch: pip install 'onnxcompress[torch]', or use obs"
        ) from error
    assert kind in ("taylor", "fisher")
    return gradient_saliency(model, feeds, kind, seed=options.seed, progress=progress)
