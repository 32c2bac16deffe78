"""Streaming observers: what is kept of a tensor's values, and the interval that follows from it.

None of them holds values: memory does not grow with what was observed. Two observers of parts of the data
merge into one of the whole.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from onnxcompress.calibration.histogram import Histogram
from onnxcompress.calibration.intervals import Interval, entropy_interval, mse_interval, percentile_interval
from onnxcompress.errors import CalibrationError

Array = np.ndarray[Any, Any]

DEFAULT_PERCENTILE = 99.99


class NonFiniteError(CalibrationError):
    """An array held a value that is not finite; `kind` is NaN, +inf or -inf, in this order."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"values are not finite ({kind})")
        self.kind = kind


class Observer(ABC):
    """Takes arrays one at a time and gives the interval in which their values lie."""

    def observe(self, array: Array) -> None:
        """Take the values of one sample: a float array of any shape. Empty ones count for nothing.

        Raises:
            NonFiniteError: NaN or infinity among them; nothing of the array is taken.
        """
        values, low, high = finite_values(array)
        if values.size:
            self._add(values.reshape(-1), low, high)

    @abstractmethod
    def _add(self, values: Array, low: float, high: float) -> None: ...

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Whether no value was observed yet."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """A new observer, as if it had seen what both saw."""

    def range(self, *, symmetric: bool = False, levels: int = 256) -> Interval:
        """The interval chosen, as `(low, high)`.

        Args:
            symmetric: the same magnitude at both ends.
            levels: of the quantizer that will use it; MSE and entropy choose by it.

        Raises:
            CalibrationError: nothing was observed.
        """
        if self.empty:
            raise CalibrationError("no values were observed")
        low, high = self._range(symmetric, levels)
        if symmetric:
            return -max(-low, high), max(-low, high)
        return low, high

    @abstractmethod
    def _range(self, symmetric: bool, levels: int) -> Interval: ...

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain data for JSON."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state.

        Raises:
            ValueError, TypeError, KeyError: the state is not one of this kind of observer.
        """


@dataclass
class MinMaxObserver(Observer):
    """The least and the greatest value."""

    low: float = math.inf
    high: float = -math.inf

    @property
    def empty(self) -> bool:
        return self.low > self.high

    def _add(self, values: Array, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    def merge(self, other: Self) -> Self:
        return type(self)(min(self.low, other.low), max(self.high, other.high))

    def _range(self, symmetric: bool, levels: int) -> Interval:
        return self.low, self.high

    def state(self) -> dict[str, Any]:
        return {"range": None if self.empty else [self.low, self.high]}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["range"] is not None:
            self.low, self.high = _interval(state["range"])


@dataclass
class MovingAverageObserver(Observer):
    """The mean over samples of each sample's least and greatest value.

    Every sample weighs the same (a cumulative moving average), so the order of the samples does not matter
    and parts can be merged, which an exponential average does not allow.
    """

    low_sum: float = 0.0
    high_sum: float = 0.0
    samples: int = 0

    @property
    def empty(self) -> bool:
        return self.samples == 0

    def _add(self, values: Array, low: float, high: float) -> None:
        self.low_sum += low
        self.high_sum += high
        self.samples += 1

    def merge(self, other: Self) -> Self:
        return type(self)(self.low_sum + other.low_sum, self.high_sum + other.high_sum, self.samples + other.samples)

    def _range(self, symmetric: bool, levels: int) -> Interval:
        return self.low_sum / self.samples, self.high_sum / self.samples

    def state(self) -> dict[str, Any]:
        return {"sums": [self.low_sum, self.high_sum], "samples": self.samples}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.low_sum, self.high_sum = _interval(state["sums"])
        self.samples = int(state["samples"])
        if self.samples < 0:
            raise ValueError(f"{self.samples} samples")


@dataclass
class HistogramObserver(Observer):
    """Base of the observers that choose from a histogram."""

    histogram: Histogram = field(default_factory=Histogram)

    @property
    def empty(self) -> bool:
        return self.histogram.count == 0

    def _add(self, values: Array, low: float, high: float) -> None:
        self.histogram.add(values, low, high)

    def merge(self, other: Self) -> Self:
        return type(self)(self.histogram.merge(other.histogram))

    def state(self) -> dict[str, Any]:
        return self.histogram.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.histogram = Histogram.restore(state)


@dataclass
class PercentileObserver(HistogramObserver):
    """The interval that holds `percentile` per cent of the non-zero values."""

    percentile: float = DEFAULT_PERCENTILE

    def merge(self, other: Self) -> Self:
        return type(self)(self.histogram.merge(other.histogram), self.percentile)

    def _range(self, symmetric: bool, levels: int) -> Interval:
        return percentile_interval(self.histogram, self.percentile)


@dataclass
class EntropyObserver(HistogramObserver):
    """The interval whose quantizer loses the least information (Kullback-Leibler)."""

    def _range(self, symmetric: bool, levels: int) -> Interval:
        return entropy_interval(self.histogram, levels=levels, symmetric=symmetric)


@dataclass
class MseObserver(HistogramObserver):
    """The interval whose quantizer has the least mean squared error."""

    def _range(self, symmetric: bool, levels: int) -> Interval:
        return mse_interval(self.histogram, levels=levels, symmetric=symmetric)


OBSERVERS: dict[str, type[Observer]] = {
    "minmax": MinMaxObserver,
    "percentile": PercentileObserver,
    "entropy": EntropyObserver,
    "mse": MseObserver,
    "moving-average": MovingAverageObserver,
}

METHODS = tuple(OBSERVERS)


def create_observer(method: str, percentile: float = DEFAULT_PERCENTILE) -> Observer:
    """A new observer.

    Raises:
        CalibrationError: no such method, or a percentile outside 50 to 100.
    """
    if method not in OBSERVERS:
        raise CalibrationError(f"no calibration method {method!r}: choose one of {', '.join(METHODS)}")
    if method == "percentile":
        if not 50.0 < percentile <= 100.0:
            raise CalibrationError(f"percentile {percentile:g}: give one above 50 and at most 100, such as 99.99")
        return PercentileObserver(percentile=percentile)
    return OBSERVERS[method]()


def finite_values(array: Array) -> tuple[Array, float, float]:
    """An array as contiguous float32, with its minimum and maximum (0, 0 where it is empty).

    Raises:
        NonFiniteError: NaN or infinity among its values, as float32.
    """
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, np.float32)
    if not values.size:
        return values, 0.0, 0.0
    low, high = float(values.min()), float(values.max())
    if math.isnan(low):
        raise NonFiniteError("NaN")
    if math.isinf(high):
        raise NonFiniteError("+inf" if high > 0 else "-inf")
    if math.isinf(low):
        raise NonFiniteError("-inf" if low < 0 else "+inf")
    return values, low, high


def _interval(pair: Any) -> Interval:
    low, high = map(float, pair)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"{low} to {high} is not a range")
    return low, high
