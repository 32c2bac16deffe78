"""Pruning one layer with compensation: which weights go, and what the others become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from onnxcompress.passes.prune import Grid, Layer
from onnxcompress.passes.prune.patterns import choose, unit_count
from onnxcompress.solvers.admm import choose_by_admm
from onnxcompress.solvers.least_squares import damped, output_error, refit
from onnxcompress.solvers.obs import choose_by_obs

Array = np.ndarray[Any, Any]
Solver = Literal["admm", "obs"]


@dataclass
class PruneLayers:
    """`solve` for `solve_layers`: prunes each layer to its share, and refits what is left.

    Attributes:
        grid: the pattern.
        ratios: share of the units that go, by layer name; of no account for N:M.
        solver: how units are chosen: 'admm', or 'obs', which is quicker and worse.
        masks: chosen beforehand, bool [N, K] by layer name: the weights are refitted only.
        errors: filled: E||(W' - W) x||^2 / E||W x||^2 of each layer's output, by layer name.
    """

    grid: Grid
    ratios: Mapping[str, float]
    solver: Solver = "admm"
    masks: Mapping[str, Array] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def __call__(self, layer: Layer, weight: Array, second: Array) -> Array:
        """The pruned weight, [G, N / G, K], of second moments [G, K, K]."""
        moments = damped(second)
        kept, start = self._choose(layer, weight, moments)
        new = refit(weight, start, kept, moments)
        self.errors[layer.name] = output_error(new, weight, second)
        return new

    def _choose(self, layer: Layer, weight: Array, moments: Array) -> tuple[Array, Array]:
        if layer.name in self.masks:
            return self.masks[layer.name].reshape(weight.shape), weight
        ratio = self.ratios.get(layer.name, 0.0)
        if self.solver == "obs":
            return choose_by_obs(weight, moments, self.grid, ratio)
        removed = round(ratio * unit_count(self.grid, (layer.outputs, layer.inputs)))
        return choose_by_admm(weight, moments, lambda scores: choose(scores, self.grid, removed))
