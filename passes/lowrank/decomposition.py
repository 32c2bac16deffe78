"""The best approximation of a matrix of weights by one of lower rank, for the inputs that it meets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

DAMPING = 1e-4
"""Added to the second moment's diagonal, as a share of its mean: what the data never showed counts a little."""

LEAST_SCALE = 1e-6
"""Of a channel in between, as a share of the greatest one's: a channel that is always zero cannot be scaled to 1."""


class Factors(NamedTuple):
    """`second @ first` stands for a weight [N, K].

    Attributes:
        first: float32 [rank, K], what meets the input.
        second: float32 [N, rank].
    """

    first: Array
    second: Array


@dataclass(frozen=True)
class Spectrum:
    """A weight seen through its inputs: what each rank costs.

    Attributes:
        values: float64 [min(N, K)], falling: the singular values of W L, where L L^T is the inputs' second moment
            (absolute error about 1e-8 of the greatest).
            Without the first r of them, E |W x - W_r x|^2 is the sum of the squares of the rest.
        vectors: float64 [N, min(N, K)]: the left singular vectors.
        weight: [N, K].
        energy: what errors are measured against: the variance of W x, summed over its channels.
    """

    values: Array
    vectors: Array
    weight: Array
    energy: float

    def lost(self, rank: int) -> float:
        """E |W x - W_r x|^2 over the variance of W x, for the approximation of this rank."""
        return float((self.values[rank:] ** 2).sum()) / self.energy if self.energy > 0 else 0.0

    def rank_for(self, energy: float) -> int:
        """The least rank that loses no more than 1 - `energy`; at least 1."""
        tails = np.cumsum(self.values[::-1] ** 2)[::-1]  # tails[r] is lost at rank r
        allowed = (1 - energy) * self.energy + 1e-12 * tails[0]
        return max(1, int(np.count_nonzero(tails > allowed)))

    def factors(self, rank: int) -> Factors:
        """The best approximation of a rank.

        W_r = U_r U_r^T W with the first r left singular vectors U_r of W L: equal to U_r S_r V_r^T L^-1, and no
        inverse is taken. The channels in between are scaled to E[z_j^2] = 1: of all ways to split W_r, with one
        step for all of them, this loses least when they are quantized.

        Raises:
            ValueError: no such rank.
        """
        if not 1 <= rank <= len(self.values):
            raise ValueError(f"rank {rank} of a matrix of rank {len(self.values)}")
        vectors = self.vectors[:, :rank]
        scales = np.maximum(self.values[:rank], LEAST_SCALE * self.values[0])
        scales = np.where(scales > 0, scales, 1.0)
        first = (vectors.T @ self.weight) / scales[:, None]
        return Factors(first.astype(np.float32), (vectors * scales).astype(np.float32))


def decompose(
    weight: Array, second: Array | None = None, mean: Array | None = None, damping: float = DAMPING
) -> Spectrum:
    """Activation-aware singular value decomposition.

    Minimizes E |W x - W_r x|^2 for every rank r, x of the given second moment H: the singular value decomposition
    of W L with H = L L^T (Wang et al., SVD-LLM, ICLR 2025, where L is Cholesky's factor; here the symmetric root of
    the eigendecomposition, which a singular H has too. Scaling by activations goes back to Yuan et al., ASVD, 2023).

    Args:
        weight: [N, K].
        second: H = E[x x^T], [K, K]; None: the identity, which is the plain decomposition.
        mean: E[x], [K]: what W gives for it is constant, and no part of the energy that errors are measured against.
            (Most inputs come out of an activation function; with their mean in it, any error would look small.)
        damping: added to the diagonal of H, as a share of its mean.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    matrix = np.asarray(weight, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
        raise ValueError("a weight must be a finite matrix [N, K]")
    outputs, inputs = matrix.shape
    moment = np.eye(inputs) if second is None else np.array(second, np.float64)
    if moment.shape != (inputs, inputs) or not np.isfinite(moment).all():
        raise ValueError(f"the second moment must be finite, [{inputs}, {inputs}]")
    if second is not None:
        np.einsum("ii->i", moment)[:] += damping * np.trace(moment) / inputs
    # The eigenvalues of the smaller Gram matrix of W L are the squares of its singular values.
    if outputs <= inputs:
        squares, vectors = np.linalg.eigh(matrix @ moment @ matrix.T)
        vectors = vectors[:, ::-1]
    else:
        seen = matrix @ _root(moment)
        squares, right = np.linalg.eigh(seen.T @ seen)
        vectors = np.linalg.qr(seen @ right[:, ::-1])[0]
    values = np.sqrt(np.maximum(squares[::-1], 0))
    constant = 0.0 if mean is None else float(np.sum((matrix @ mean) ** 2))
    return Spectrum(values, vectors, matrix, max(float(np.sum(values**2)) - constant, 0.0))


def _root(moment: Array) -> Array:
    values, vectors = np.linalg.eigh(moment)
    root: Array = vectors * np.sqrt(np.maximum(values, 0))
    return root
