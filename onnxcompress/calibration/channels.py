"""Streaming statistics per channel: what SmoothQuant, equalization and bias correction need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcompress.calibration.observers import finite_values
from onnxcompress.errors import CalibrationError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ChannelStatistics:
    """Statistics over all values of each channel.

    Attributes:
        minimum, maximum: float32 `[channels]`, exact.
        mean: float64 `[channels]`, of x.
        mean_abs: float64 `[channels]`, of |x|.
        count: values in each channel.
    """

    minimum: Array
    maximum: Array
    mean: Array
    mean_abs: Array
    count: int

    @property
    def max_abs(self) -> Array:
        """The greatest |x| of each channel, float32 `[channels]`."""
        return np.maximum(-self.minimum, self.maximum)


@dataclass(frozen=True)
class _Sums:
    """What is kept, each `[channels]`: float32 extremes and float64 sums."""

    minimum: Array
    maximum: Array
    total: Array
    total_abs: Array
    count: int

    def __add__(self, other: _Sums) -> _Sums:
        if self.total.size != other.total.size:
            raise CalibrationError(f"{other.total.size} channels, where there were {self.total.size} before")
        return _Sums(
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.total + other.total,
            self.total_abs + other.total_abs,
            self.count + other.count,
        )


class ChannelObserver:
    """Streams the extremes and sums of each channel along one axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis
        self._sums: _Sums | None = None

    def observe(self, array: Array) -> None:
        """Take the values of one sample: a float array that has the axis.

        Raises:
            NonFiniteError: NaN or infinity among them.
            CalibrationError: the array has no such axis, or another number of channels than the ones before.
        """
        if not -array.ndim <= self.axis < array.ndim:
            raise CalibrationError(f"a tensor of shape {array.shape} has no axis {self.axis}")
        values, _, _ = finite_values(array)
        if not values.size:
            return
        others = tuple(i for i in range(values.ndim) if i != self.axis % values.ndim)
        part = _Sums(
            values.min(axis=others),
            values.max(axis=others),
            values.sum(axis=others, dtype=np.float64),
            np.abs(values).sum(axis=others, dtype=np.float64),
            values.size // values.shape[self.axis],
        )
        self._sums = part if self._sums is None else self._sums + part

    def merge(self, other: ChannelObserver) -> ChannelObserver:
        """A new observer, as if it had seen what both saw.

        Raises:
            CalibrationError: their axes or numbers of channels differ.
        """
        if self.axis != other.axis:
            raise CalibrationError(f"channels along axis {self.axis} cannot be merged with axis {other.axis}")
        merged = ChannelObserver(self.axis)
        merged._sums = self._sums + other._sums if self._sums and other._sums else self._sums or other._sums
        return merged

    def statistics(self) -> ChannelStatistics:
        """What was seen.

        Raises:
            CalibrationError: nothing was.
        """
        if self._sums is None:
            raise CalibrationError("no values were observed")
        sums = self._sums
        return ChannelStatistics(
            sums.minimum, sums.maximum, sums.total / sums.count, sums.total_abs / sums.count, sums.count
        )
