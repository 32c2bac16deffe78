"""Patterns of zeros in a weight's [N, K] view, and which of their units go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from onnxcompress.passes.prune.layers import Layer

Array = np.ndarray[Any, Any]
Pattern = Literal["unstructured", "2:4", "block1x4", "block4x4", "block16x4"]

LEAST_WEIGHTS = 1024
"""Smaller layers stay dense: they cost next to nothing, and each of their weights matters."""


@dataclass(frozen=True)
class Grid:
    """What a pattern removes at once, and where it may.

    Attributes:
        rows, columns: of a unit: consecutive outputs by consecutive K. The matrix counts as padded with zeros to
            whole units, as the sparse kernels see it.
        keep: of `columns` consecutive weights of a row, how many stay (N of N:M); None: units go whole.
    """

    rows: int = 1
    columns: int = 1
    keep: int | None = None


GRIDS: dict[str, Grid] = {
    "unstructured": Grid(),
    "2:4": Grid(1, 4, keep=2),
    "block1x4": Grid(1, 4),
    "block4x4": Grid(4, 4),
    "block16x4": Grid(16, 4),
}


def grid_of(pattern: str) -> Grid:
    """The grid of a pattern.

    Raises:
        ValueError: no such pattern.
    """
    if pattern not in GRIDS:
        raise ValueError(f"pattern must be one of {', '.join(GRIDS)}, not {pattern!r}")
    return GRIDS[pattern]


def pattern_refusal(layer: Layer, pattern: str) -> str | None:
    """Why a layer takes no mask of a pattern, or None if it does."""
    grid = grid_of(pattern)
    if layer.outputs * layer.inputs < LEAST_WEIGHTS:
        return f"it has fewer than {LEAST_WEIGHTS} weights"
    if grid.columns > 1 and layer.groups > 1:
        return f"no kernel runs a grouped convolution in the pattern {pattern}"
    if layer.inputs < grid.columns or layer.outputs < grid.rows:
        return f"its {layer.outputs} x {layer.inputs} weights are less than a block"
    return None


def unit_sums(matrix: Array, grid: Grid) -> Array:
    """Sums over the units of [N, K], `[ceil(N / rows), ceil(K / columns)]`."""
    padded = _padded(matrix, grid)
    rows, columns = padded.shape[0] // grid.rows, padded.shape[1] // grid.columns
    sums: Array = padded.reshape(rows, grid.rows, columns, grid.columns).sum(axis=(1, 3))
    return sums


def expand_units(units: Array, grid: Grid, shape: tuple[int, ...]) -> Array:
    """The array [N, K] in which every weight has its unit's value."""
    full = np.repeat(np.repeat(units, grid.rows, axis=0), grid.columns, axis=1)
    return full[: shape[0], : shape[1]]


def keep_greatest(scores: Array, removed: int) -> Array:
    """True but for the `removed` least scores; of equal ones the first go, so that a result can be repeated."""
    kept = np.ones(scores.size, bool)
    kept[np.argsort(scores, axis=None, kind="stable")[:removed]] = False
    return kept.reshape(scores.shape)


def keep_of_each_group(scores: Array, grid: Grid) -> Array:
    """N:M: True for the `keep` greatest scores of each `columns` in a row [N, K]; a short last group keeps as many.

    Raises:
        ValueError: the grid is not one of N:M.
    """
    if grid.keep is None:
        raise ValueError("this pattern removes whole units")
    padded = _padded(scores.astype(np.float64), grid, -np.inf)
    groups = padded.reshape(len(padded), -1, grid.columns)
    order = np.argsort(-groups, axis=-1, kind="stable")[..., : grid.keep]
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, order, True, axis=-1)
    return kept.reshape(padded.shape)[:, : scores.shape[1]]


def choose(scores: Array, grid: Grid, removed: int) -> Array:
    """The mask [N, K] that keeps the greatest scores [N, K].

    Args:
        removed: units that go; of no account for N:M.
    """
    if grid.keep is not None:
        return keep_of_each_group(scores, grid)
    return expand_units(keep_greatest(unit_sums(scores, grid), removed), grid, scores.shape)


def unit_count(grid: Grid, shape: tuple[int, ...]) -> int:
    """Units of a matrix [N, K]."""
    return -(-shape[0] // grid.rows) * -(-shape[1] // grid.columns)


def follows(mask: Array, grid: Grid) -> bool:
    """Whether a mask [N, K], True where a weight is kept, is one that the pattern allows."""
    kept = unit_sums(mask.astype(np.int64), grid)
    if grid.keep is not None:
        return bool((kept <= grid.keep).all())
    return bool(((kept == 0) | (kept == unit_sums(np.ones(mask.shape, np.int64), grid))).all())


def _padded(matrix: Array, grid: Grid, value: float = 0) -> Array:
    missing = [(0, -size % unit) for size, unit in zip(matrix.shape, (grid.rows, grid.columns), strict=True)]
    return np.pad(matrix, missing, constant_values=value) if any(m for _, m in missing) else matrix
