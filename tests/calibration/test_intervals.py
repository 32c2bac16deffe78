"""Intervals chosen from histograms, against numpy and brute-force search on the values themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.calibration.histogram import Histogram
from onnxcompress.calibration.intervals import (
    entropy_interval,
    mse_interval,
    percentile_interval,
    squared_error,
)
from tests.calibration.models import f32

Array = np.ndarray[Any, Any]


def samples(name: str) -> Array:
    rng = np.random.default_rng(7)
    values = {
        "normal": rng.standard_normal(20_000),
        "laplace": rng.laplace(size=20_000),
        "relu": np.maximum(rng.standard_normal(20_000), 0),
        "relu6": np.clip(rng.standard_normal(20_000) * 4, 0, 6),
        "skewed": rng.gamma(2.0, size=20_000) - 0.5,
        "positive": rng.random(20_000) + 5,
        "negative": -rng.random(20_000) - 5,
        "outlier": np.append(rng.standard_normal(20_000), [40.0, -3.0]),
    }[name]
    return values.astype(np.float32)


SHAPES = ["normal", "laplace", "relu", "relu6", "skewed", "positive", "negative", "outlier"]


def histogram_of(values: Array) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, 7):
        histogram.add(part, float(part.min()), float(part.max()))
    return histogram


def true_error(values: Array, low: float, high: float, symmetric: bool = False, levels: int = 256) -> float:
    if symmetric:
        scale = high / (levels // 2 - 1)
        first, last = -(levels // 2 - 1), levels // 2 - 1
    else:
        scale = (high - low) / (levels - 1)
        first = int(np.rint(low / scale))
        last = first + levels - 1
    x = values.astype(np.float64)
    return float(((x - scale * np.clip(np.rint(x / scale), first, last)) ** 2).mean())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99, 100.0])
def test_percentile_is_numpys_within_a_bin(shape: str, percentile: float) -> None:
    values = samples(shape)
    histogram = histogram_of(values)
    low, high = percentile_interval(histogram, percentile)
    rest = values[values != 0]
    cut = (100 - percentile) / 2
    width = 2.0**histogram.exponent
    for got, share in ((low, cut), (high, 100 - cut)):
        if got == 0.0 and histogram.zeros:
            continue  # exact zeros were seen, so the interval contains zero
        assert np.percentile(rest, share, method="lower") - width <= got
        assert got <= np.percentile(rest, share, method="higher") + width


@pytest.mark.parametrize("interval", [percentile_interval, mse_interval, entropy_interval])
def test_a_spike_of_zeros_changes_nothing(interval: Any) -> None:
    values = samples("relu")
    parameters = {"percentile": 99.9} if interval is percentile_interval else {}
    spiked = np.append(values, np.zeros(1_000_000, np.float32))
    assert interval(histogram_of(values), **parameters) == interval(histogram_of(spiked), **parameters)


def test_percentile_of_nothing_but_zeros_is_zero() -> None:
    assert percentile_interval(histogram_of(np.zeros(9, np.float32)), 99.0) == (0.0, 0.0)


@pytest.mark.parametrize("values", [[0, 0, 1, 2, 3], [0, 0, -1, -2, -3], [0, 1], [-1, 0]])
def test_percentile_100_reaches_the_extremes(values: list[float]) -> None:
    array = f32(values)
    assert percentile_interval(histogram_of(np.repeat(array, 7)), 100.0) == (array.min(), array.max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_squared_error_is_that_of_the_values(shape: str, symmetric: bool) -> None:
    values = samples(shape)
    histogram = histogram_of(values)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    factors = np.array([1.0, 0.7, 0.31, 0.05])
    got = squared_error(histogram, low * factors, high * factors, levels=256, symmetric=symmetric)
    expected = [true_error(values, low * f, high * f, symmetric) for f in factors]
    np.testing.assert_allclose(got, expected, rtol=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_as_good_as_a_brute_force_search(shape: str) -> None:
    values = samples(shape)
    low, high = mse_interval(histogram_of(values))
    bottom, top = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    lows = [bottom] if bottom == 0 else bottom * np.linspace(0.3, 1, 16)
    highs = [top] if top == 0 else top * np.linspace(0.05, 1, 40)
    best = min(true_error(values, a, b) for a in lows for b in highs)
    assert bottom <= low <= 0 <= high <= top
    assert true_error(values, low, high) <= 1.03 * best


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetric_mse_is_as_good_as_a_brute_force_search(shape: str) -> None:
    values = samples(shape)
    low, high = mse_interval(histogram_of(values), symmetric=True)
    top = float(np.abs(values).max())
    best = min(true_error(values, -a, a, symmetric=True) for a in top * np.linspace(0.05, 1, 96))
    assert -low == high <= top
    assert true_error(values, low, high, symmetric=True) <= 1.02 * best


def test_more_levels_clip_less() -> None:
    histogram = histogram_of(samples("normal"))
    coarse, fine = mse_interval(histogram, levels=16), mse_interval(histogram, levels=65536)
    assert coarse[1] < 0.8 * fine[1]
    assert fine[1] > 0.99 * histogram.maximum


def test_entropy_cuts_an_outlier_and_keeps_the_bulk() -> None:
    low, high = entropy_interval(histogram_of(samples("outlier")))
    assert -5.0 < low < -2.0
    assert 2.5 < high < 15.0


def test_entropy_keeps_a_flat_distribution_whole() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 200_000).astype(np.float32)
    low, high = entropy_interval(histogram_of(values))
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_stays_within_the_values(shape: str, symmetric: bool) -> None:
    values = samples(shape)
    low, high = entropy_interval(histogram_of(values), symmetric=symmetric)
    top = float(np.abs(values).max())
    if symmetric:
        assert -low == high <= top
    else:
        assert min(float(values.min()), 0) <= low <= 0 <= high <= max(float(values.max()), 0)


@pytest.mark.parametrize("interval", [mse_interval, entropy_interval])
@pytest.mark.parametrize("value", [0.0, 3.5, -3.5])
def test_a_constant_tensor_keeps_its_value_and_zero(interval: Any, value: float) -> None:
    assert interval(histogram_of(np.full(20, value, np.float32))) == (min(value, 0.0), max(value, 0.0))


@pytest.mark.parametrize("interval", [mse_interval, entropy_interval])
def test_two_close_values_far_from_zero(interval: Any) -> None:
    low, high = interval(histogram_of(f32([1000, 1000, 1000, 1000, 1000, 1000, 1000.0001])))
    assert low == 0.0
    assert high == pytest.approx(1000, rel=1e-3)
