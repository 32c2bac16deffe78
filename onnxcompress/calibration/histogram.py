"""A histogram of an unknown range, filled as values stream by, that merges exactly.

Bins are `2**exponent` wide and start at whole multiples of that width. When a wider value arrives the width
doubles, which joins neighbouring bins; scaling by a power of two is exact in floating point, so the bins of
the result depend only on the values seen, never on their order or on how they were split into parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MAX_BINS = 4096
"""Bins at most; the width doubles beyond, so between half as many and all of them cover the range."""

_LEAST_EXPONENT = -120  # 1 / width stays a normal float32
_MANTISSA = 24  # indices of at most 24 bits are exact in float32
_BLOCK = 1 << 16  # values binned at a time: the scratch arrays stay in the cache


@dataclass(eq=False)
class Histogram:
    """Counts of finite values, with their exact minimum and maximum.

    Exact zeros are counted apart and are in no bin: after a ReLU they are most of the values, and they say
    nothing about the range, since every quantization grid represents zero exactly.

    Attributes:
        count: values seen, zeros included.
        zeros: exact zeros seen.
        minimum, maximum: infinite while `count` is 0.
        exponent: a bin is `2**exponent` wide.
        start: the first bin begins at `start * 2**exponent`.
        counts: int64 `[bins]`, the non-zero values in each bin.
    """

    count: int = 0
    zeros: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    exponent: int = 0
    start: int = 0
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.state() == other.state()

    __hash__ = None  # type: ignore[assignment]

    def add(self, values: Array, low: float, high: float) -> None:
        """Count values.

        Args:
            values: float32 `[n]`, n at least 1, all finite.
            low, high: their minimum and maximum.
        """
        self._cover(low, high)
        zeros = values.size - int(np.count_nonzero(values))
        self.counts += _bin(values, self.exponent, self.start, self.counts.size)
        if zeros:
            self.counts[-self.start] -= zeros  # zero lies at the beginning of bin 0
        self.zeros += zeros
        self.count += values.size

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of the values of both, exactly as if one had seen them all."""
        merged = Histogram()
        for part in (self, other):
            if part.count:
                merged._cover(part.minimum, part.maximum)
        for part in (self, other):
            if part.count:
                merged._add_bins(part.counts, part.start, part.exponent)
        merged.count = self.count + other.count
        merged.zeros = self.zeros + other.zeros
        return merged

    def edges(self) -> Array:
        """Edges of the bins, float64 `[bins + 1]`; the outermost are the exact minimum and maximum."""
        indices = np.arange(self.start, self.start + self.counts.size + 1)
        return np.clip(np.ldexp(indices.astype(np.float64), self.exponent), self.minimum, self.maximum)

    def state(self) -> dict[str, Any]:
        """Plain data for JSON; `restore` undoes it."""
        return {
            "count": self.count,
            "zeros": self.zeros,
            "range": [self.minimum, self.maximum] if self.count else None,
            "exponent": self.exponent,
            "start": self.start,
            "counts": self.counts.tolist(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Histogram:
        """The histogram of a `state`.

        Raises:
            ValueError, TypeError, KeyError: the state is not that of a histogram.
        """
        counts = np.asarray(state["counts"], np.int64).reshape(-1)
        low, high = (math.inf, -math.inf) if state["range"] is None else map(float, state["range"])
        restored = cls(int(state["count"]), int(state["zeros"]), low, high, counts=counts)
        expected = cls()
        if restored.count:
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{low} to {high} is not a range")
            expected._cover(low, high)
        restored.exponent, restored.start = int(state["exponent"]), int(state["start"])
        if (restored.exponent, restored.start, counts.size) != (
            expected.exponent,
            expected.start,
            expected.counts.size,
        ):
            raise ValueError("the bins do not fit the range")
        if (counts < 0).any() or restored.zeros < 0 or int(counts.sum()) + restored.zeros != restored.count:
            raise ValueError("the bins do not add up to the count")
        return restored

    def _cover(self, low: float, high: float) -> None:
        minimum, maximum = min(self.minimum, low), max(self.maximum, high)
        if (minimum, maximum) == (self.minimum, self.maximum):
            return
        counts, start, exponent = self.counts, self.start, self.exponent
        self.minimum, self.maximum = minimum, maximum
        self.exponent = _exponent(minimum, maximum)
        self.start = _index(minimum, self.exponent)
        self.counts = np.zeros(_index(maximum, self.exponent) + 1 - self.start, np.int64)
        self._add_bins(counts, start, exponent)

    def _add_bins(self, counts: Array, start: int, exponent: int) -> None:
        indices = np.arange(start, start + counts.size) >> (self.exponent - exponent)
        filled = counts > 0
        np.add.at(self.counts, indices[filled] - self.start, counts[filled])


def _index(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent(low: float, high: float) -> int:
    """The least exponent at which the bins from `low` to `high` are few enough and their indices exact."""
    exponent = max(_LEAST_EXPONENT, math.frexp(max(abs(low), abs(high)))[1] - _MANTISSA)
    if high > low:
        exponent = max(exponent, math.frexp((high - low) / MAX_BINS)[1] - 2)
    while _index(high, exponent) - _index(low, exponent) >= MAX_BINS:
        exponent += 1
    return exponent


def _bin(values: Array, exponent: int, start: int, bins: int) -> Array:
    # Several times faster than np.histogram. A factor below 1 could underflow in float32 and move a tiny
    # negative value into bin 0, so wide ranges go through float64.
    dtype = np.float32 if exponent <= 0 else np.float64
    factor = dtype(math.ldexp(1.0, -exponent))
    scratch = np.empty(min(_BLOCK, values.size), dtype)
    indices = np.empty(scratch.size, np.int64)
    counts = np.zeros(bins, np.int64)
    for begin in range(0, values.size, _BLOCK):
        block = values[begin : begin + _BLOCK]
        scaled, index = scratch[: block.size], indices[: block.size]
        np.multiply(block, factor, out=scaled)
        np.floor(scaled, out=scaled)
        np.subtract(scaled, dtype(start), out=scaled)
        np.copyto(index, scaled, casting="unsafe")
        counts += np.bincount(index, minlength=bins)
    return counts
