"""What removing each channel, neuron or head costs, for `prune`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.errors import ModelError
from onnxcompress.passes.prune import Layer
from onnxcompress.passes.prune.channels import Group, unit_saliency
from onnxcompress.progress import Progress
from onnxcompress.pruning.options import Options, Saliency
from onnxcompress.pruning.saliency import LOCAL, measure_saliency

Array = np.ndarray[Any, Any]
Scores = dict[str, Array]


def score_units(
    model: ir.Model,
    groups: Sequence[Group],
    layers: Sequence[Layer],
    options: Options,
    data: DataSet | None,
    notes: list[str],
    progress: Progress,
) -> tuple[Scores, bool]:
    """Scores of each group's units by its name, float64, and whether they can be compared between groups.

    With data and no saliency asked for: the geometric mean of fisher (what the outputs feel) and wanda (what the
    layers that read a unit feel, scaled to fisher's sum in each group). Fisher alone cuts neurons that are very large
    on a few positions, which the refit of what reads them then chases at the cost of all others. Mean cosine of
    MiniLM's embeddings at 70 % of its multiply-accumulates: 0.94 by both, 0.87 by wanda, 0.55 by fisher; a PP-OCR
    classifier at 85 %: right in 99, 74 and 99 % of cases.
    """

    def measured(kind: Saliency) -> Scores:
        saliency = measure_saliency(model, layers, kind, data, options, progress)
        return {group.name: unit_saliency(group, saliency) for group in groups}

    if options.saliency is not None or data is None:
        kind = options.saliency or "magnitude"
        return measured(kind), kind not in LOCAL
    reason = "PyTorch is not installed"
    if importlib.util.find_spec("torch") is not None:
        try:
            fisher = measured("fisher")
        except ModelError as error:
            reason = str(error)
        else:
            return _combined(fisher, measured("wanda")), True
    notes.append(f"channels were chosen by obs; gradients of the outputs choose better, but {reason}")
    return measured("obs"), False


def _combined(of_outputs: Scores, of_readers: Scores) -> Scores:
    """Geometric means, the second scaled to the sum of the first in each group; the first alone where no reader of the
    group is measured, as of transposed convolutions."""
    scores = {}
    for name, first in of_outputs.items():
        total = of_readers[name].sum()
        scores[name] = np.sqrt(first * (of_readers[name] / total) * first.sum()) if total > 0 else first
    return scores
