"""Pruning while training: masks that grow with the steps, chosen anew from the weights as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.errors import ModelError
from onnxcompress.passes.prune import (
    Layer,
    checked_sparsity,
    find_layers,
    from_matrix,
    grid_of,
    layer_nodes,
    pattern_refusal,
    sparsity_at,
    to_matrix,
    weight_of,
)
from onnxcompress.passes.prune.patterns import Grid, choose, keep_greatest, keep_of_each_group, unit_count
from onnxcompress.progress import Progress, silent
from onnxcompress.pruning.options import SAMPLES, Pattern
from onnxcompress.solvers import input_power

Array = np.ndarray[Any, Any]

GROWING_SHARE = 0.6
"""Of the steps, in which masks grow; what is left then is trained to the end."""

RENEWALS = 50
"""How often masks are chosen on the way."""


@dataclass(frozen=True)
class Schedule:
    """What is pruned in how many steps.

    Attributes:
        pattern: of masks, see `prune`.
        sparsity: share of the weights of each layer that goes; None: the pattern's own.
        steps: of the whole training.

    Raises:
        ValueError: channels, which are cut before training; a sparsity that the pattern does not have; too few steps.
    """

    pattern: Pattern
    sparsity: float | None
    steps: int

    def __post_init__(self) -> None:
        if self.pattern == "channels":
            raise ValueError("channels are not pruned while training: prune them first, then distil what is left")
        checked_sparsity(self.pattern, self.sparsity)
        if self.until < 1:
            raise ValueError(f"pruning while training takes more than {self.steps} steps")

    @property
    def until(self) -> int:
        """The step from which masks stay."""
        return int(GROWING_SHARE * self.steps)

    def is_renewed(self, step: int) -> bool:
        """Are masks chosen at a step?"""
        return step == self.until or (step < self.until and step % max(1, self.until // RENEWALS) == 0)


def schedule_of(pattern: Pattern | None, sparsity: float | None, steps: int | None) -> Schedule | None:
    """The schedule of a training, or None where nothing is pruned in it.

    Raises:
        ValueError: they do not go together.
    """
    if pattern is None:
        if sparsity is not None:
            raise ValueError("sparsity needs a pattern: what is pruned while training")
        return None
    if steps is None:
        raise ValueError("pruning while training needs steps, by which the masks grow")
    return Schedule(pattern, sparsity, steps)


class GrowingMasks:
    """Masks of each step: called by the training as `Gradual.masks_at`.

    A weight's saliency is w^2 E[x^2] (`wanda_saliency`) with the weight as it is now and its input as it was before
    the training. Weights once removed are zeros, so they stay the least; the sparsity follows `sparsity_at`.

    Args:
        model: before the training.
        data: what E[x^2] is measured on, its first 128 feeds.
        power: E[x^2] by initializer, where it is known; None: measured.

    Raises:
        ModelError: no layer takes the pattern.
    """

    def __init__(
        self,
        model: ir.Model,
        data: DataSet,
        schedule: Schedule,
        power: Mapping[str, Array] | None = None,
        progress: Progress = silent,
    ) -> None:
        self.schedule = schedule
        layers = takers(model, schedule.pattern)
        self.power = power or input_power(model, layers, data.take(0, SAMPLES), progress=progress)
        self._nodes = dict(layer_nodes(model, layers))
        self._shapes = {layer.weight: weight_of(model, layer).shape for layer in layers}

    def __call__(self, step: int, weight: Callable[[str], Array]) -> dict[str, Array] | None:
        if not self.schedule.is_renewed(step):
            return None
        grid = grid_of(self.schedule.pattern)
        final = checked_sparsity(self.schedule.pattern, self.schedule.sparsity)
        sparsity = sparsity_at(step, self.schedule.until, final)
        masks = {}
        for layer, node in self._nodes.items():
            scores = to_matrix(np.square(weight(layer.weight)) * self.power[layer.weight], node)
            kept = _kept(scores, grid, sparsity, final)
            masks[layer.weight] = from_matrix(kept, node, self._shapes[layer.weight])
        return masks


def takers(model: ir.Model, pattern: Pattern) -> Sequence[Layer]:
    """The layers that take a pattern.

    Raises:
        ModelError: there is none.
    """
    found, _ = find_layers(model)
    layers = [layer for layer in found if pattern_refusal(layer, pattern) is None]
    if not layers:
        raise ModelError(f"no layer of the student takes the pattern {pattern}: there is nothing to prune")
    return layers


def _kept(scores: Array, grid: Grid, sparsity: float, final: float) -> Array:
    """The mask of [N, K] on the way; of N:M a growing share of the groups, those that lose least."""
    if grid.keep is None:
        return choose(scores, grid, round(sparsity * unit_count(grid, scores.shape)))
    kept = keep_of_each_group(scores, grid)
    lost = np.pad(np.where(kept, 0, scores), [(0, 0), (0, -scores.shape[1] % grid.columns)])
    costs = lost.reshape(len(scores), -1, grid.columns).sum(axis=2)
    untouched = keep_greatest(costs, round(sparsity / final * costs.size))
    mask: Array = kept | np.repeat(untouched, grid.columns, axis=1)[:, : scores.shape[1]]
    return mask
