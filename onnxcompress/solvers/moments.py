"""Moments of what layers read: all that a solver knows of the data, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from onnxcompress.calibration.observers import finite_values
from onnxcompress.errors import CalibrationError
from onnxcompress.solvers.patches import MOST_ROWS, Patches, Rows

Array = np.ndarray[Any, Any]


class Moments(NamedTuple):
    """Of a layer's input rows x, K wide, each group of a convolution apart.

    Attributes:
        rows: seen.
        mean: E[x], float64 [groups, K].
        second: E[x x^T], float64 [groups, K, K].
    """

    rows: int
    mean: Array
    second: Array

    @property
    def centred(self) -> Array:
        """The covariance of x, float64 [groups, K, K]."""
        covariance: Array = self.second - self.mean[:, :, None] * self.mean[:, None, :]
        return covariance


class MomentObserver:
    """Streams the moments of rows.

    Args:
        rows: how an array is read as rows.
        seed: of the rows that are drawn where there are too many.
    """

    def __init__(self, rows: Rows | Patches, seed: int = 0) -> None:
        self.rows = rows
        self._rng = np.random.default_rng(seed)
        self._held: list[Array] = []
        self._count = 0
        self._sum: Array | None = None
        self._products: Array | None = None

    def observe(self, array: Array) -> None:
        """Take the values of one sample; empty ones count for nothing.

        Raises:
            NonFiniteError: NaN or infinity among them.
            CalibrationError: another width than before.
        """
        values, _, _ = finite_values(array)
        if not values.size:
            return
        x = self.rows.sample(values.reshape(array.shape), self._rng)
        if self._sum is None:
            self._sum = np.zeros((x.shape[0], x.shape[2]))
            self._products = np.zeros((x.shape[0], x.shape[2], x.shape[2]))
        if self._sum.shape != (x.shape[0], x.shape[2]):
            raise CalibrationError(f"rows of {x.shape[2]} values, where there were {self._sum.shape[1]} before")
        # A copy: rows that were not drawn are the runtime's own memory. One product of many rows costs less than many.
        self._held.append(x.copy())
        if sum(part.shape[1] for part in self._held) >= MOST_ROWS:
            self._flush()

    def moments(self) -> Moments:
        """What was seen.

        Raises:
            CalibrationError: nothing was.
        """
        self._flush()
        if self._sum is None or self._products is None:
            raise CalibrationError("no values were observed")
        return Moments(self._count, self._sum / self._count, self._products / self._count)

    def _flush(self) -> None:
        if not self._held or self._sum is None or self._products is None:
            return
        x = np.concatenate(self._held, axis=1)
        self._held = []
        self._count += x.shape[1]
        self._sum += x.sum(axis=1, dtype=np.float64)
        self._products += x.transpose(0, 2, 1) @ x


class SeveralObservers:
    """Hands one tensor to several observers: layers of different kernels may read the same value."""

    def __init__(self, observers: Sequence[MomentObserver]) -> None:
        self.observers = observers

    def observe(self, array: Array) -> None:
        """Take the values of one sample."""
        for observer in self.observers:
            observer.observe(array)
