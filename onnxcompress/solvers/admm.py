"""Which weights go, found together with what the others become: alternating directions (ADMM).

After Meng et al., ALPS: Improved Optimization for Highly Sparse One-Shot Pruning (NeurIPS 2024). Against one pass of
SparseGPT with the same refit after it, the error of a layer's output is 15 to 30 % lower in every pattern (MiniLM).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST_STEPS = 90
CHECK_EVERY = 3
FIRST_PENALTY = 0.1
GROWTH = ((0.05, 1.3), (0.005, 1.2), (0.0, 1.1))
"""By which the penalty grows where more than this share of the mask has changed since it was looked at."""


def choose_by_admm(weight: Array, second: Array, choose: Callable[[Array], Array]) -> tuple[Array, Array]:
    """A mask, and weights on it to start a refit from.

    Minimises E||(W' - W) x||^2 with W' on a pattern: a quadratic step (dense, by the eigenvectors of the second
    moments), a step that cuts to the pattern, and a penalty between the two that grows until the mask stands still.
    Inputs are scaled to E[x_i^2] = 1, so that cutting by magnitude cuts by what a weight contributes.

    Args:
        weight: [G, n, K].
        second: [G, K, K], positive definite.
        choose: from scores [G * n, K] to the mask of the pattern, with its share removed.

    Returns:
        bool and float64 [G, n, K].
    """
    scale = np.sqrt(np.diagonal(second, axis1=1, axis2=2))[:, None, :]
    # Single precision is enough to find a mask; the refit after it is in double.
    values, vectors = np.linalg.eigh((second / (scale * scale.transpose(0, 2, 1))).astype(np.float32))
    values = values[:, None, :]
    back = vectors.transpose(0, 2, 1)
    scaled = (weight * scale).astype(np.float32)
    linear = ((scaled @ vectors) * values) @ back
    sparse, multiplier, penalty = scaled, np.zeros_like(scaled), FIRST_PENALTY
    kept, seen = np.ones(scaled.shape, bool), None
    for step in range(1, MOST_STEPS + 1):
        dense = (((linear - multiplier + penalty * sparse) @ vectors) / (values + penalty)) @ back
        wanted = dense + multiplier / penalty
        kept = choose((wanted * wanted).reshape(-1, wanted.shape[2])).reshape(wanted.shape)
        sparse = np.where(kept, wanted, np.float32(0))
        multiplier = multiplier + penalty * (dense - sparse)
        if step % CHECK_EVERY == 0:
            changed = 1.0 if seen is None else float((kept != seen).mean())
            if not changed:
                break
            penalty *= next(factor for share, factor in GROWTH if changed > share)
            seen = kept
    return kept, sparse / scale
