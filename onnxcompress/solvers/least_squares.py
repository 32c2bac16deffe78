"""Weights that stay make up for those that went: least squares over what is left.

All arrays of one layer are batches over its groups: weights [G, n, K], second moments [G, K, K].
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

DAMPING = 0.01
"""Share of the mean diagonal that is added to it: directions that the data hardly has stay near the original."""


def damped(second: Array, share: float = DAMPING) -> Array:
    """Second moments [G, K, K] with a share of their mean diagonal added to it; the identity for inputs that are 0."""
    mean = np.diagonal(second, axis1=1, axis2=2).mean(axis=1)
    added = np.where(mean > 0, share * mean, 1.0)
    result: Array = second + added[:, None, None] * np.eye(second.shape[1])
    return result


def output_error(weight: Array, original: Array, second: Array) -> float:
    """E||(W' - W) x||^2 / E||W x||^2; 0 where the outputs are."""
    size = _energy(original, second)
    return _energy(weight - original, second) / size if size > 0 else 0.0


def refit(original: Array, start: Array, kept: Array, second: Array, steps: int = 20) -> Array:
    """The weights on a mask that come closest to what the original computes: the least of E||(W' - W) x||^2.

    Each row is a least squares problem of its own; all run at once by conjugate gradients on the weights that are
    kept, with the diagonal as preconditioner. No step makes the error larger, and as many as a row has weights give the
    exact solution.

    Args:
        original: [G, n, K].
        start: from where to go on; what is outside of the mask counts for nothing.
        kept: bool [G, n, K].
        second: [G, K, K], positive definite (`damped`).

    Returns:
        float64 [G, n, K], zero outside of the mask.
    """
    diagonal = np.diagonal(second, axis1=1, axis2=2)[:, None, :]
    weight = np.where(kept, start, 0.0)
    residual = np.where(kept, (original - weight) @ second, 0.0)
    preconditioned = residual / diagonal
    direction = preconditioned
    size = (residual * preconditioned).sum(axis=2, keepdims=True)
    for _ in range(steps):
        image = np.where(kept, direction @ second, 0.0)
        curvature = (direction * image).sum(axis=2, keepdims=True)
        length = np.divide(size, curvature, out=np.zeros_like(size), where=curvature > 0)
        weight = weight + length * direction
        residual = residual - length * image
        preconditioned = residual / diagonal
        new = (residual * preconditioned).sum(axis=2, keepdims=True)
        direction = preconditioned + np.divide(new, size, out=np.zeros_like(size), where=size > 0) * direction
        size = new
    return weight


def _energy(weight: Array, second: Array) -> float:
    return float(((weight @ second) * weight).sum())
