"""Streaming moments against numpy over all rows at once."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.calibration.observers import NonFiniteError
from onnxcompress.errors import CalibrationError
from onnxcompress.solvers.moments import MomentObserver, SeveralObservers
from onnxcompress.solvers.patches import Patches, Rows
from tests.passes.quantize.models import normal


def test_moments_of_a_stream_are_those_of_the_whole() -> None:
    parts = [normal(n, 3, 6, seed=n) + np.float32(0.5) for n in (1, 4, 2)]
    observer = MomentObserver(Rows())
    for part in parts:
        observer.observe(part)
    observer.observe(np.zeros((0, 3, 6), np.float32))
    rows = np.concatenate([part.reshape(-1, 6) for part in parts]).astype(np.float64)
    moments = observer.moments()
    assert moments.rows == 21
    assert np.allclose(moments.mean[0], rows.mean(axis=0), atol=1e-6)
    assert np.allclose(moments.second[0], rows.T @ rows / 21, atol=1e-5)
    assert np.allclose(moments.centred[0], np.cov(rows.T, bias=True), atol=1e-5)


def test_groups_have_their_own() -> None:
    x = normal(1, 4, 5, 5)
    observer = MomentObserver(Patches((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), groups=2))
    observer.observe(x)
    second = observer.moments().second
    assert second.shape == (2, 2, 2)
    rows = x[0, 2:].reshape(2, -1)
    assert np.allclose(second[1], rows @ rows.T / 25, atol=1e-5)


def test_several_read_one_value() -> None:
    first, second = MomentObserver(Rows()), MomentObserver(Patches((2,), (1,), (1,), ((0, 0),)))
    SeveralObservers([first, second]).observe(normal(1, 3, 4))
    assert first.moments().second.shape == (1, 4, 4)
    assert second.moments().second.shape == (1, 6, 6)


def test_what_cannot_be_observed() -> None:
    observer = MomentObserver(Rows())
    with pytest.raises(CalibrationError, match="no values"):
        observer.moments()
    with pytest.raises(NonFiniteError):
        observer.observe(np.array([[1, np.nan]], np.float32))
    observer.observe(normal(2, 3))
    with pytest.raises(CalibrationError, match="rows of 4 values, where there were 3"):
        observer.observe(normal(2, 4))
