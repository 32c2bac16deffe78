"""Choosing the interval of a quantizer from a histogram: percentile, squared error, divergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxcompress.calibration.histogram import Histogram

Array = np.ndarray[Any, Any]
Interval = tuple[float, float]
Objective = Callable[[Array, Array], Array]
"""From the lower and upper ends of candidate intervals, float64 `[n]` each, to their cost `[n]`."""

_COARSE = 2.0 ** (-np.arange(0, 29) / 4)  # shrink factors from 1 to 1/128, 19 % apart
_FINE = 2.0 ** (np.arange(-8, 9) / 32)  # around the best one, 2 % apart
_ROUNDS = 2


def percentile_interval(histogram: Histogram, percentile: float) -> Interval:
    """The interval that holds `percentile` per cent of the non-zero values; each end cuts half the rest.

    Where exact zeros were seen, the interval contains zero. Accurate to the width of a bin.
    """
    seen = int(histogram.counts.sum())
    if not seen:
        return 0.0, 0.0
    edges, cumulative = histogram.edges(), np.cumsum(histogram.counts)
    cut = (100.0 - percentile) / 200.0
    low, high = (_value_at(share * seen, cumulative, histogram.counts, edges) for share in (cut, 1.0 - cut))
    return (min(low, 0.0), max(high, 0.0)) if histogram.zeros else (low, high)


def mse_interval(histogram: Histogram, *, levels: int = 256, symmetric: bool = False) -> Interval:
    """The interval around zero whose quantizer has the least mean squared error on the values.

    Args:
        histogram: of the values; taken as spread evenly within a bin.
        levels: of the quantizer, 256 for 8 bits.
        symmetric: the same magnitude at both ends, with `levels - 1` levels.
    """

    def cost(low: Array, high: Array) -> Array:
        return squared_error(histogram, low, high, levels=levels, symmetric=symmetric)

    return _search(cost, histogram, symmetric)


def entropy_interval(histogram: Histogram, *, levels: int = 256, symmetric: bool = False) -> Interval:
    """The interval around zero whose quantizer loses the least information (Kullback-Leibler divergence).

    The method of Migacz, "8-bit inference with TensorRT" (GTC 2017): what is clipped is added to the
    outermost bins of the reference, the quantized distribution is spread evenly over the filled bins of each
    level, and the interval with the least divergence between the two wins. Here the ends are chosen apart,
    and exact zeros are left out of both distributions.
    """

    filled = histogram.counts > 0
    edges = histogram.edges()
    centres, counts = ((edges[:-1] + edges[1:]) / 2)[filled], histogram.counts[filled].astype(np.float64)

    def cost(low: Array, high: Array) -> Array:
        grids = zip(low, high, *_grid(low, high, levels, symmetric)[:2], strict=True)
        return np.array([_divergence(centres, counts, *grid) for grid in grids])

    return _search(cost, histogram, symmetric)


def squared_error(histogram: Histogram, low: Array, high: Array, *, levels: int, symmetric: bool) -> Array:
    """Mean squared error of quantizing the values with each interval: float64 `[n]`, for ends `[n]`.

    The levels are `k * scale`, k from `first` to `last`. The square of x's distance to the nearest level has
    the antiderivative `scale**3 * (k / 12 + r**3 / 3)`, where k is that level's number and r = x / scale - k;
    so it stays beyond the last level, where r goes on growing.
    """
    edges = histogram.edges()
    width = np.diff(edges)
    # A bin that the exact minimum or maximum cuts to nothing is one value; a quotient would be all rounding.
    thin = width <= 1e-6 * np.maximum(np.abs(edges[:-1]), np.abs(edges[1:]))
    density = np.where(thin, 0.0, histogram.counts / np.where(thin, 1.0, width))
    # The sum over bins of density * (F(end) - F(begin)), ordered by edge, so that F is taken once an edge.
    weights = np.append(0.0, density) - np.append(density, 0.0)
    used = weights != 0.0
    grid = _grid(low, high, levels, symmetric)
    level, rest = _nearest(edges[used], *grid)
    integral = (level / 12 + rest * rest * rest / 3) @ weights[used]
    total: Array = grid[0] ** 3 * integral
    single = thin & (histogram.counts > 0)
    if single.any():
        _, rest = _nearest(edges[1:][single], *grid)
        total += grid[0] ** 2 * ((rest * rest) @ histogram.counts[single])
    return total / histogram.count


def _nearest(values: Array, scale: Array, first: Array, last: Array) -> tuple[Array, Array]:
    """The number of the level nearest to each value, and the rest in levels: `[grids, values]` both."""
    position = values / scale[:, None]
    level = np.rint(position)
    np.clip(level, first[:, None], last[:, None], out=level)
    return level, position - level


def _divergence(centres: Array, counts: Array, low: float, high: float, scale: float, first: float) -> float:
    """Divergence of the distribution quantized on a grid from the true one; infinite where all is cut."""
    inside = slice(*np.searchsorted(centres, [low, high]))
    kept = counts[inside]
    if not kept.size:
        return math.inf
    level = (np.rint(centres[inside] / scale) - first).astype(np.int64)
    level -= level[0]
    quantized = (np.bincount(level, kept) / np.maximum(np.bincount(level), 1))[level] / kept.sum()
    true = kept.copy()
    true[0] += counts[: inside.start].sum()
    true[-1] += counts[inside.stop :].sum()
    true /= true.sum()
    return float((true * np.log(true / quantized)).sum())


def _grid(low: Array, high: Array, levels: int, symmetric: bool) -> tuple[Array, Array, Array]:
    """The scale, and the first and last level, of the quantizer of each interval."""
    if symmetric:
        last = np.full(high.shape, levels // 2 - 1.0)
        return np.maximum(-low, high) / last, -last, last
    scale = (high - low) / (levels - 1)
    first = np.rint(low / scale)
    return scale, first, first + levels - 1


def _search(cost: Objective, histogram: Histogram, symmetric: bool) -> Interval:
    """Shrink the full interval: both ends together, then each in turn."""
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    if histogram.minimum == histogram.maximum:
        return low, high
    if symmetric:
        high = max(-low, high)
        low = -high
    factors = np.append(_COARSE, _FINE[_FINE < 1.0])
    best = _best(cost, low * factors, high * factors)
    if symmetric:
        factor = _ends(1.0, best[1] / high)
        return _best(cost, low * factor, high * factor)
    for _ in range(_ROUNDS):
        highs = _ends(high, best[1])
        best = _best(cost, np.full(highs.size, best[0]), highs)
        lows = _ends(low, best[0])
        best = _best(cost, lows, np.full(lows.size, best[1]))
    return best


def _ends(bound: float, current: float) -> Array:
    """Candidates for one end: shrunk from the outermost, and close to the current one, which is the first."""
    near = current * _FINE
    return np.concatenate([[current], bound * _COARSE, near[np.abs(near) <= abs(bound)]])


def _best(cost: Objective, lows: Array, highs: Array) -> Interval:
    index = int(np.argmin(cost(lows, highs)))
    return float(lows[index]), float(highs[index])


def _value_at(rank: float, cumulative: Array, counts: Array, edges: Array) -> float:
    """The value below which `rank` of the binned values lie, taken as spread evenly within a bin."""
    index = int(np.searchsorted(cumulative, min(rank, cumulative[-1])))
    while counts[index] == 0:  # rank 0 finds the first bin, which holds nothing where zero is the minimum
        index += 1
    share = (rank - (cumulative[index] - counts[index])) / counts[index]
    return float(edges[index] + min(max(share, 0.0), 1.0) * (edges[index + 1] - edges[index]))
