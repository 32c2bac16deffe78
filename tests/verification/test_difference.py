"""Errors over many feeds, against numpy on all of them at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxcompress.data import Array
from onnxcompress.verification.difference import Difference, Differences


def of(*pairs: tuple[Array, Array]) -> Difference:
    difference = Difference()
    for wanted, found in pairs:
        difference.add(wanted, found)
    return difference


def test_floats() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(0, n, (2, n)).astype(np.float32), rng.normal(0, n, (2, n)).astype(np.float32)) for n in (3, 9)]
    a, b = (np.concatenate([pair[i].ravel() for pair in pairs]).astype(np.float64) for i in (0, 1))
    difference = of(*pairs)
    assert difference.error() == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
    assert difference.level == pytest.approx(np.sqrt(np.mean(a**2)))
    assert difference.error(100.0) == pytest.approx(np.sqrt(np.mean((a - b) ** 2)) / 100)
    assert difference.told() == ""


def test_integers_and_strings_by_their_share() -> None:
    assert of((np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]))).error() == 0.25
    assert of((np.array(["a", "b"]), np.array(["a", "c"]))).error() == 0.5
    assert of((np.array([True, False]), np.array([True, False]))).error() == 0.0


def test_zeros() -> None:
    zeros = np.zeros(4)
    assert of((zeros, zeros)).error() == 0.0
    assert of((zeros, zeros + 0.5)).error() == 0.5


def test_not_finite() -> None:
    nan, one = np.array([1.0, np.nan]), np.array([1.0, 1.0])
    assert of((one, nan)).error() == math.inf
    assert of((nan, one)).error() == 0.0
    assert of((nan, nan)).error() == 0.0
    assert of((one, one), (one, nan)).told() == "not finite where the original is, on 1 of 2 feeds"


def test_other_shapes_and_types_count_as_wholly_different() -> None:
    one = np.ones((1, 4))
    assert of((one, one), (one, np.ones((1, 5)))).error() == 0.5
    assert of((one, one), (one, np.ones((1, 4), np.int64))).error() == 0.5
    assert "another shape" in of((one, np.ones(4))).told()


def test_a_small_error_for_large_numbers_is_no_overflow() -> None:
    huge = np.full(3, 3e38, np.float32)
    assert of((huge, huge)).error() == 0.0
    assert of((huge, huge * np.float32(0.9))).error() == pytest.approx(0.1, rel=1e-5)


def test_several_outputs() -> None:
    differences = Differences(["a", "b"])
    differences.add([np.ones(2), np.ones(2)], [np.ones(2), np.array([1, np.nan])])
    assert differences.errors({}) == {"a": 0.0, "b": math.inf}
    assert differences.told() == "b: not finite where the original is, on 1 of 1 feeds"
