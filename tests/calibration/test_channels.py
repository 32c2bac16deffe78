"""Statistics per channel against numpy on all the data."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.calibration import ChannelObserver
from onnxcompress.calibration.observers import NonFiniteError
from onnxcompress.errors import CalibrationError
from tests.calibration.models import f32


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_statistics_are_numpys(axis: int) -> None:
    rng = np.random.default_rng(0)
    shapes = [[5, 5, 5] for _ in range(6)]
    for shape in shapes:
        shape[(axis + 1) % 3] = int(rng.integers(1, 9))
    arrays = [(rng.standard_normal(shape) + 0.3).astype(np.float32) for shape in shapes]
    parts = [ChannelObserver(axis), ChannelObserver(axis)]
    for index, array in enumerate(arrays):
        parts[index % 2].observe(array)
    statistics = parts[0].merge(parts[1]).statistics()
    everything = np.concatenate([np.moveaxis(a, axis, 0).reshape(5, -1) for a in arrays], axis=1)
    np.testing.assert_array_equal(statistics.minimum, everything.min(axis=1))
    np.testing.assert_array_equal(statistics.maximum, everything.max(axis=1))
    np.testing.assert_array_equal(statistics.max_abs, np.abs(everything).max(axis=1))
    np.testing.assert_allclose(statistics.mean, everything.mean(axis=1, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(statistics.mean_abs, np.abs(everything).mean(axis=1, dtype=np.float64), rtol=1e-12)
    assert statistics.count == everything.shape[1]


def test_a_scalar_per_channel_and_an_empty_array() -> None:
    observer = ChannelObserver(0)
    observer.observe(np.zeros(0, np.float32))
    observer.observe(f32([1, -2]))
    observer.observe(np.array([3, -4], np.float16))
    np.testing.assert_array_equal(observer.statistics().mean, [2, -3])
    assert observer.statistics().count == 2


def test_merging_with_an_empty_observer_gives_the_other() -> None:
    filled = ChannelObserver()
    filled.observe(f32([[1, 2], [3, 4]]))
    for merged in (filled.merge(ChannelObserver()), ChannelObserver().merge(filled)):
        np.testing.assert_array_equal(merged.statistics().mean, [2, 3])


def test_what_does_not_fit_is_refused() -> None:
    observer = ChannelObserver(1)
    with pytest.raises(CalibrationError, match="no values"):
        observer.statistics()
    with pytest.raises(CalibrationError, match="no axis 1"):
        observer.observe(np.zeros(3, np.float32))
    observer.observe(np.zeros((2, 3), np.float32))
    with pytest.raises(CalibrationError, match="4 channels, where there were 3"):
        observer.observe(np.zeros((2, 4), np.float32))
    with pytest.raises(NonFiniteError):
        observer.observe(np.full((2, 3), np.nan, np.float32))
    with pytest.raises(CalibrationError, match="axis 0"):
        observer.merge(ChannelObserver(0))
