"""Observers against numpy on all the data, merged, saved and fed with what they must refuse."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcompress.calibration.observers import (
    METHODS,
    HistogramObserver,
    NonFiniteError,
    Observer,
    create_observer,
)
from onnxcompress.errors import CalibrationError
from tests.calibration.models import f32

Array = np.ndarray[Any, Any]

ARRAYS = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=3, max_side=5, min_side=0), elements=st.floats(-1e6, 1e6, width=32)
)


def observed(method: str, *arrays: Array) -> Observer:
    observer = create_observer(method)
    for array in arrays:
        observer.observe(array)
    return observer


def batches(count: int = 12) -> list[Array]:
    rng = np.random.default_rng(3)
    return [(rng.standard_normal((4, rng.integers(1, 9), 5)) * (i + 1)).astype(np.float32) for i in range(count)]


def test_minmax_is_numpys() -> None:
    everything = np.concatenate([b.ravel() for b in batches()])
    assert observed("minmax", *batches()).range() == (everything.min(), everything.max())


def test_moving_average_is_the_mean_of_the_samples_extremes() -> None:
    low, high = observed("moving-average", *batches()).range()
    assert low == pytest.approx(np.mean([b.min() for b in batches()]))
    assert high == pytest.approx(np.mean([b.max() for b in batches()]))


def test_percentile_100_is_minmax() -> None:
    observer = create_observer("percentile", 100.0)
    for batch in batches():
        observer.observe(batch)
    assert observer.range() == pytest.approx(observed("minmax", *batches()).range())


@pytest.mark.parametrize("method", METHODS)
def test_symmetric_ranges_have_one_magnitude(method: str) -> None:
    low, high = observed(method, *batches()).range(symmetric=True)
    assert -low == high > 0


@pytest.mark.parametrize("method", METHODS)
@given(ARRAYS, ARRAYS, ARRAYS)
def test_merging_is_associative_and_that_of_the_whole(method: str, a: Array, b: Array, c: Array) -> None:
    x, y, z = observed(method, a), observed(method, b), observed(method, c)
    whole = observed(method, a, b, c)
    left, right = x.merge(y).merge(z), x.merge(y.merge(z))
    assert left.empty == right.empty == whole.empty == (a.size + b.size + c.size == 0)
    if whole.empty:
        return
    if method == "moving-average":
        assert left.range() == pytest.approx(whole.range(), rel=1e-9, abs=1e-6)
        assert right.range() == pytest.approx(whole.range(), rel=1e-9, abs=1e-6)
    else:
        assert left.state() == right.state() == whole.state()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arrays", [[], batches(3)], ids=["empty", "filled"])
def test_a_state_survives_json(method: str, arrays: list[Array]) -> None:
    observer, restored = observed(method, *arrays), create_observer(method)
    restored.restore(json.loads(json.dumps(observer.state(), allow_nan=False)))
    assert restored.state() == observer.state()
    assert restored.empty or restored.range() == observer.range()


@pytest.mark.parametrize(
    ("method", "state"),
    [
        ("minmax", {"range": [1.0, 0.0]}),
        ("minmax", {"range": [0.0]}),
        ("minmax", {"range": [0.0, float("inf")]}),
        ("minmax", {}),
        ("moving-average", {"sums": [0.0, 1.0], "samples": -1}),
        ("moving-average", {"sums": [2.0, 1.0], "samples": 1}),
    ],
)
def test_a_damaged_state_is_refused(method: str, state: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        create_observer(method).restore(state)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken_as_float32(method: str, dtype: Any) -> None:
    values = np.linspace(-1, 2, 100).astype(dtype)
    assert observed(method, values).state() == observed(method, values.astype(np.float32)).state()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "+inf"), (-np.inf, "-inf"), (1e300, "+inf")])
def test_what_is_not_finite_is_refused_and_not_taken(method: str, value: float, kind: str) -> None:
    observer = observed(method, f32([1, 2]))
    before = observer.state()
    with pytest.raises(NonFiniteError) as caught:
        observer.observe(np.array([[0.5, value]]))
    assert caught.value.kind == kind
    assert observer.state() == before


@pytest.mark.parametrize("method", METHODS)
def test_an_observer_of_nothing_has_no_range(method: str) -> None:
    observer = observed(method, np.zeros((0, 3), np.float32))
    assert observer.empty
    with pytest.raises(CalibrationError, match="no values"):
        observer.range()


def test_strided_arrays_are_read_right() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    assert observed("minmax", values).range() == (0.0, 22.0)
    observer = observed("mse", values)
    assert isinstance(observer, HistogramObserver)
    assert observer.histogram.count == 12


def test_unknown_methods_and_percentiles_are_refused() -> None:
    with pytest.raises(CalibrationError, match="choose one of minmax"):
        create_observer("maximum")
    for percentile in (0.0, 50.0, 100.1, float("nan")):
        with pytest.raises(CalibrationError, match="percentile"):
            create_observer("percentile", percentile)


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_what_was_observed(method: str) -> None:
    rng = np.random.default_rng(0)
    observer = create_observer(method)
    tracemalloc.start()
    try:
        for i in range(60):
            observer.observe(rng.standard_normal(20_000).astype(np.float32) * (i + 1))
            if i == 9:
                early = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] < early + 40_000
    finally:
        tracemalloc.stop()
