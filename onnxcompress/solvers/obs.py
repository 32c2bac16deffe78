"""The optimal brain surgeon: one pass over the columns, each taking out its error with the columns after it.

Frantar & Alistarh, SparseGPT (2023), and GPTQ (2022): the inverse of the second moments is factored once; a column's
error, divided by its diagonal, is spread over the later columns by its row. Updates beyond the columns at hand wait
until those are done, so that nearly all the work is products of matrices.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from onnxcompress.passes.prune import Grid
from onnxcompress.passes.prune.patterns import expand_units, keep_greatest, keep_of_each_group

Array = np.ndarray[Any, Any]

COLUMNS = 128
"""Worked on at a time."""


class Rule(Protocol):
    """What becomes of columns."""

    def begin(self, start: int, columns: Array, diagonal: Array) -> None:
        """The columns from `start` on, [N, width] as they are now, come next; `diagonal` is the factor's there."""

    def settle(self, column: int, left: Array, diagonal: Array) -> Array:
        """The new values [N] of one column; `left` holds it and those of the columns at hand that follow."""


def inverse_factor(second: Array) -> Array:
    """U with U^T U = H^-1, upper triangular, of one H [K, K], positive definite."""
    factor: Array = np.linalg.cholesky(np.linalg.inv(second)).T
    return factor


def sweep(weight: Array, factor: Array, rule: Rule, width: int = COLUMNS) -> Array:
    """Settle the columns of a matrix [N, K] one after the other; float64, a new matrix."""
    weight = weight.astype(np.float64)
    for start in range(0, weight.shape[1], width):
        stop = min(start + width, weight.shape[1])
        part, errors = weight[:, start:stop], np.zeros((len(weight), stop - start))
        inner = factor[start:stop, start:stop]
        diagonal = np.diagonal(inner)
        rule.begin(start, part, diagonal)
        for j in range(stop - start):
            new = rule.settle(start + j, part[:, j:], diagonal[j:])
            errors[:, j] = (part[:, j] - new) / diagonal[j]
            part[:, j:] -= np.outer(errors[:, j], inner[j, j:])
            part[:, j] = new
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return weight


class Masking:
    """Prunes columns on the way: SparseGPT.

    Weights go where w^2 / U_jj^2 is least: of every `width` columns the same share, or of each group of N:M.

    Args:
        grid: of single weights, or of N:M.
        sparsity: share of the weights that go; of no account for N:M.
        shape: [N, K] of the mask that it makes.
    """

    def __init__(self, grid: Grid, sparsity: float, shape: tuple[int, int]) -> None:
        self.grid = grid
        self.sparsity = sparsity
        self.kept = np.ones(shape, bool)

    def begin(self, start: int, columns: Array, diagonal: Array) -> None:
        if self.grid.keep is None:
            scores = (columns / diagonal) ** 2
            kept = keep_greatest(scores, round(self.sparsity * scores.size))
            self.kept[:, start : start + columns.shape[1]] = kept

    def settle(self, column: int, left: Array, diagonal: Array) -> Array:
        if self.grid.keep is not None and column % self.grid.columns == 0:
            scores = (left / diagonal)[:, : self.grid.columns] ** 2
            self.kept[:, column : column + scores.shape[1]] = keep_of_each_group(scores, self.grid)
        return np.where(self.kept[:, column], left[:, 0], 0.0)


def block_scores(weight: Array, inverse: Array, grid: Grid) -> Array:
    """What removing each unit of [N, K] costs, with the best compensation: sum of w_b^T (H^-1_bb)^-1 w_b over its rows.

    Kurtic et al., The Optimal BERT Surgeon (2022), equation 6, without the factor 1/2.

    Returns:
        [ceil(N / rows), ceil(K / columns)].
    """
    scores = []
    for start in range(0, weight.shape[1], grid.columns):
        part = weight[:, start : start + grid.columns]
        cut = inverse[start : start + grid.columns, start : start + grid.columns]
        scores.append((part * np.linalg.solve(cut, part.T).T).sum(axis=1))
    rows = np.stack(scores, axis=1)
    padded = np.pad(rows, [(0, -len(rows) % grid.rows), (0, 0)])
    units: Array = padded.reshape(-1, grid.rows, rows.shape[1]).sum(axis=1)
    return units


def choose_by_obs(weight: Array, second: Array, grid: Grid, sparsity: float) -> tuple[Array, Array]:
    """A mask, and weights on it to start a refit from; the quick way.

    Args:
        weight: [G, n, K].
        second: [G, K, K], positive definite.
        grid: the pattern.
        sparsity: share of the units that go, in each group; of no account for N:M.

    Returns:
        bool and float64 [G, n, K].
    """
    masks, weights = [], []
    for part, moments in zip(weight, second, strict=True):
        if grid.columns > 1 and grid.keep is None:
            units = block_scores(part, np.linalg.inv(moments), grid)
            kept = keep_greatest(units, round(sparsity * units.size))
            masks.append(expand_units(kept, grid, part.shape))
            weights.append(part.astype(np.float64))
        else:
            rule = Masking(grid, sparsity, (part.shape[0], part.shape[1]))
            weights.append(sweep(part, inverse_factor(moments), rule))
            masks.append(rule.kept)
    return np.stack(masks), np.stack(weights)
