"""How much of each layer goes: from scores that compare across layers, or from errors that were measured."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

MOST_REMOVED = 0.97
"""Of one layer, when layers compete: one with nothing left would cut the model in two."""


class Point(NamedTuple):
    """What a layer costs at a sparsity: the model's error (any measure, added over layers)."""

    sparsity: float
    error: float


def relative_scores(scores: Array) -> Array:
    """Scores as shares of the layer's own that are no smaller: s_i / sum of s_j >= s_i (LAMP, Lee et al., ICLR 2021).

    It makes what is measured in the units of one layer (magnitudes, errors of its output) comparable between layers
    and keeps the order within one.
    """
    flat = scores.reshape(-1).astype(np.float64)
    order = np.argsort(flat, kind="stable")
    tails = np.cumsum(flat[order][::-1])[::-1]
    result = np.empty_like(flat)
    result[order] = flat[order] / np.where(tails > 0, tails, 1)
    return result.reshape(scores.shape)


def allocate_globally(scores: Mapping[str, Array], sparsity: float) -> dict[str, int]:
    """How many units of each layer go when the least scores of all layers together do.

    Args:
        scores: of each layer's units, any shape.
        sparsity: share of all units to remove; no layer loses more than `MOST_REMOVED`.
    """
    names = list(scores)
    owners = np.repeat(np.arange(len(names)), [scores[name].size for name in names])
    order = np.argsort(np.concatenate([scores[name].reshape(-1) for name in names]), kind="stable")
    # The place of each unit in its own layer's order tells whether the layer can still lose it.
    place = np.empty(len(order), np.int64)
    for index, name in enumerate(names):
        place[order[owners[order] == index]] = np.arange(scores[name].size)
    limits = np.array([int(MOST_REMOVED * scores[name].size) for name in names])
    removable = order[place[order] < limits[owners[order]]]
    removed = owners[removable[: round(sparsity * len(order))]]
    return {name: int(count) for name, count in zip(names, np.bincount(removed, minlength=len(names)), strict=True)}


def allocate_by_error(
    curves: Mapping[str, Sequence[Point]], sizes: Mapping[str, int], sparsity: float
) -> dict[str, float]:
    """Sparsities that remove a share of all weights at the least sum of the layers' errors.

    Each layer's curve is replaced by its lower convex hull; steps along the hulls are taken in the order of their
    error per weight, the last one in part. It is the optimum of the hulls.

    Args:
        curves: measured points of each layer; the error at sparsity 0 is 0 and need not be given.
        sizes: weights of each layer.
        sparsity: share of the weights of these layers to remove.

    Raises:
        ValueError: the curves do not reach that far.
    """
    steps = []
    for name, points in curves.items():
        hull = _lower_hull([Point(0.0, 0.0), *(Point(p.sparsity, max(p.error, 0.0)) for p in points)])
        for first, second in itertools.pairwise(hull):
            weights = (second.sparsity - first.sparsity) * sizes[name]
            steps.append(((second.error - first.error) / weights, name, weights))
    ratios = dict.fromkeys(curves, 0.0)
    wanted = sparsity * sum(sizes[name] for name in curves)
    for _, name, weights in sorted(steps, key=lambda step: step[0]):
        taken = min(weights, wanted)
        ratios[name] += taken / sizes[name]
        wanted -= taken
    if wanted > 1e-6 * sum(sizes.values()):
        raise ValueError(f"the curves do not reach a sparsity of {sparsity}")
    return ratios


def _lower_hull(points: Sequence[Point]) -> list[Point]:
    hull: list[Point] = []
    for point in sorted(points):
        if hull and hull[-1].sparsity == point.sparsity:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(first: Point, second: Point) -> float:
    return (second.error - first.error) / (second.sparsity - first.sparsity)
