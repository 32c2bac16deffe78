"""The streaming histogram against numpy on all values at once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcompress.calibration.histogram import MAX_BINS, Histogram
from tests.calibration.models import f32

Array = np.ndarray[Any, Any]

VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.floats(-10, 10, width=32),
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30]),
    ),
)


def histogram_of(*parts: Array) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part, float(part.min()), float(part.max()))
    return histogram


def assert_same(a: Histogram, b: Histogram) -> None:
    assert a.state() == b.state()


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_the_bins_are_those_of_all_values_at_once(parts: list[Array]) -> None:
    histogram = histogram_of(*parts)
    values = np.concatenate(parts).astype(np.float64)
    rest = values[values != 0]
    bins = np.floor(rest * 2.0**-histogram.exponent).astype(np.int64) - histogram.start
    assert histogram.count == values.size
    assert histogram.zeros == values.size - rest.size
    assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())
    np.testing.assert_array_equal(histogram.counts, np.bincount(bins, minlength=histogram.counts.size))


@given(VALUES, VALUES, VALUES)
def test_merging_is_exact_in_any_order(a: Array, b: Array, c: Array) -> None:
    whole = histogram_of(np.concatenate([a, b, c]))
    x, y, z = histogram_of(a), histogram_of(b), histogram_of(c)
    assert_same(x.merge(y).merge(z), whole)
    assert_same(x.merge(y.merge(z)), whole)
    assert_same(z.merge(x).merge(y), whole)
    assert_same(Histogram().merge(whole), whole)
    assert_same(whole.merge(Histogram()), whole)


def test_merging_leaves_the_parts_alone() -> None:
    narrow, wide = histogram_of(f32([1, 2])), histogram_of(f32([-100, 900]))
    before = narrow.state(), wide.state()
    narrow.merge(wide)
    assert (narrow.state(), wide.state()) == before


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1.37, 2.0, 1e6, 3e38])
def test_between_half_and_all_of_the_bins_are_used(spread: float) -> None:
    values = (np.random.default_rng(0).random(10_000) * spread - spread / 3).astype(np.float32)
    assert MAX_BINS / 2 - 1 <= histogram_of(values).counts.size <= MAX_BINS


def test_a_narrow_range_far_from_zero_is_still_exact() -> None:
    values = np.float32(1000) + np.arange(8, dtype=np.float32) * np.float32(2**-13)
    histogram = histogram_of(values)
    assert histogram.counts.sum() == 8
    assert histogram.counts.size <= MAX_BINS


def test_edges_end_at_the_exact_extremes() -> None:
    edges = histogram_of(f32([-0.3, 0.7])).edges()
    assert (edges[0], edges[-1]) == (float(np.float32(-0.3)), float(np.float32(0.7)))
    assert (np.diff(edges) >= 0).all()


@given(VALUES)
def test_a_state_survives_json(values: Array) -> None:
    histogram = histogram_of(values)
    assert_same(Histogram.restore(json.loads(json.dumps(histogram.state()))), histogram)


def test_an_empty_state_survives_json() -> None:
    assert_same(Histogram.restore(json.loads(json.dumps(Histogram().state()))), Histogram())


@pytest.mark.parametrize(
    "change",
    [
        {"count": 5},
        {"zeros": -1},
        {"range": [2.0, 1.0]},
        {"range": [float("nan"), 1.0]},
        {"range": None},
        {"exponent": 3},
        {"start": 1},
        {"counts": [1, 2, 3]},
        {"counts": "many"},
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, Any]) -> None:
    state = histogram_of(f32([-1, 0, 1, 2])).state() | change
    with pytest.raises((ValueError, TypeError)):
        Histogram.restore(state)


def test_negative_counts_are_refused() -> None:
    state = histogram_of(f32([-1, 0, 1, 2])).state()
    state["counts"][0], state["counts"][1] = 2, -1
    with pytest.raises(ValueError, match="add up"):
        Histogram.restore(state)
