"""What is remembered of the data."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.verification import sample
from onnxcompress.verification.sample import Sample, Values, image_axes


def test_statistics_are_those_of_all_feeds() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(3, 2, (n, 4)).astype(np.float32) for n in (1, 7, 30)]
    values = Values()
    for array in arrays:
        values.add(array)
    together = np.concatenate(arrays).astype(np.float64)
    assert values.kind == "floats"
    assert values.mean == pytest.approx(together.mean())
    assert values.std == pytest.approx(together.std())
    assert (values.least, values.greatest) == (together.min(), together.max())


def test_what_is_not_finite_is_left_out() -> None:
    values = Values()
    values.add(np.array([1.0, np.nan, 3.0, np.inf, 5.0]))
    assert (values.mean, values.least, values.greatest, values.kind) == (3.0, 1.0, 5.0, "floats")
    empty = Values()
    empty.add(np.array([np.nan]))
    assert (empty.kind, empty.mean, empty.std) == ("other", 0.0, 0.0)


@pytest.mark.parametrize(("shape", "axes"), [
    ((1, 3, 32, 48), (2, 3)), ((2, 1, 8, 8), (2, 3)), ((1, 32, 48, 3), (1, 2)), ((1, 4, 4, 4), None),
    ((1, 16, 32, 32), None), ((3, 32, 48), None), ((1, 3, 4, 48), None),
])  # fmt: skip
def test_images(shape: tuple[int, ...], axes: tuple[int, int] | None) -> None:
    assert image_axes(np.zeros(shape)) == axes


def test_every_feed_is_as_likely_to_be_kept() -> None:
    counts = np.zeros(50)
    for seed in range(600):
        kept = Sample(10, seed)
        for i in range(50):
            kept.add({"x": np.array([float(i)])})
        assert len(kept.feeds) == 10 and kept.seen == 50
        counts[[int(feed["x"][0]) for feed in kept.feeds]] += 1
    # Binomial with 600 trials at 0.2: mean 120, deviation 9.8.
    assert counts.min() > 120 - 4.5 * 9.8 and counts.max() < 120 + 4.5 * 9.8


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SAMPLE_BYTES", 8 * 100)
    kept = Sample(32, 0)
    for size in (1, 1, 1, 20, 20, 20, 30, 1, 1, 500, 1, 1):
        kept.add({"x": np.zeros(size)})
    assert len(kept.feeds) == 1
    assert kept.seen == 12


def test_few_values_are_no_ids() -> None:
    values = Values()
    for start in range(0, 16, 4):
        values.add(np.arange(start, start + 4)[None])
    assert values.kind == "other"
    values.add(np.array([[16, 17]]))
    assert values.kind == "ids"
