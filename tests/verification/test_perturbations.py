"""Perturbations, against what they should be, computed in other ways."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.data import Array
from onnxcompress.verification import perturbations
from onnxcompress.verification.perturbations import PERTURBATIONS, blur, constant, noise, one_id, replaced_ids, scaled
from onnxcompress.verification.sample import Values


def seen(*arrays: Array) -> Values:
    values = Values()
    for array in arrays:
        values.add(array)
    return values


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


FLOATS = np.random.default_rng(1).normal(2, 3, (40, 500)).astype(np.float32)


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    inner = np.full((200, 200), 2.0, np.float32)
    values = seen(FLOATS)
    noisy = noise(0.1)(inner, values, generator())
    assert noisy.dtype == np.float32
    assert np.std(noisy - inner) == pytest.approx(0.1 * np.std(FLOATS), rel=0.02)
    assert abs(np.mean(noisy - inner)) < 0.01


def test_noise_stays_within_the_range_of_the_data() -> None:
    values = seen(FLOATS)
    noisy = noise(5)(FLOATS, values, generator())
    assert noisy.min() == FLOATS.min() and noisy.max() == FLOATS.max()


def naive_blur(image: Array, kernel: tuple[int, ...]) -> Array:
    """Of one channel, pixel by pixel, borders repeated."""
    reach = len(kernel) // 2
    height, width = image.shape
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for i, a in enumerate(kernel):
                for j, b in enumerate(kernel):
                    row = min(max(y + i - reach, 0), height - 1)
                    column = min(max(x + j - reach, 0), width - 1)
                    result[y, x] += a * b * image[row, column]
    return result / sum(kernel) ** 2


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 4, 6, 4, 1)])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_blur(kernel: tuple[int, ...], layout: str) -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 9, 11)).astype(np.float32)
    array = image if layout == "nchw" else image.transpose(0, 2, 3, 1)
    values = seen(array)
    assert values.kind == "image"
    blurred = blur(tuple(map(float, kernel)))(array, values, generator())
    if layout == "nhwc":
        blurred = blurred.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(blurred[1, 2], naive_blur(image[1, 2], kernel), atol=1e-6)


def sentences() -> list[Array]:
    """Ids 1 (start), 2 (end) and 0 (padding) in all, and others of 100 to 399."""
    rng = np.random.default_rng(4)
    feeds = [rng.integers(100, 400, (1, 50)) for _ in range(20)]
    for feed in feeds:
        feed[0, 0], feed[0, 30], feed[0, 31:] = 1, 2, 0
    return feeds


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_replaced_ids(share: float) -> None:
    feeds = sentences()
    values = seen(*feeds)
    rng = generator()
    changed = np.concatenate([replaced_ids(share)(feed, values, rng) for feed in feeds])
    before = np.concatenate(feeds)
    special = before < 100
    assert np.array_equal(changed[special], before[special])
    assert set(changed[~special].tolist()) <= set(before[~special].tolist())
    assert np.mean(changed[~special] != before[~special]) == pytest.approx(share, abs=0.05)
    assert changed.dtype == before.dtype


def test_one_id() -> None:
    feeds = sentences()
    feeds[3][0, 5] = feeds[9][0, 5] = feeds[12][0, 5] = 777
    for feed in feeds[:17]:
        feed[0, 7] = 55  # in most feeds, but not in nine of ten
    values = seen(*feeds)
    assert [np.unique(one_id(i)(feeds[0], values, generator())).tolist() for i in range(3)] == [[0], [777], [55]]


def test_scaled() -> None:
    values = seen(FLOATS)
    mean = FLOATS.astype(np.float64).mean()
    np.testing.assert_allclose(scaled(4)(FLOATS, values, generator()), mean + 4 * (FLOATS - mean), rtol=1e-4, atol=1e-4)
    clipped = scaled(4, clipped=True)(FLOATS, values, generator())
    assert clipped.min() == FLOATS.min() and clipped.max() == FLOATS.max()


def test_saturated_and_constant() -> None:
    values = seen(FLOATS)
    limits = perturbations.saturated(FLOATS, values, generator())
    above = FLOATS - FLOATS.mean() > 0
    np.testing.assert_array_equal(limits, np.where(above, FLOATS.max(), FLOATS.min()))
    assert np.unique(constant(lambda v: v.least)(FLOATS, values, generator())).tolist() == [FLOATS.min()]


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda p: p.name)
def test_pictures_of_bytes_stay_bytes_and_other_inputs_as_they_are(perturbation: perturbations.Perturbation) -> None:
    rng = np.random.default_rng(0)
    feed: dict[str, Array] = {
        "x": rng.integers(0, 200, (1, 16, 16, 3)).astype(np.uint8),
        "mask": rng.integers(0, 2, (1, 64)),
        "float_mask": np.where(rng.random((1, 64)) < 0.5, 0, -1e4).astype(np.float32),
        "rate": np.array(16000),
        "flag": np.array([True]),
        "words": np.array([["a", "b"]], dtype=object),
    }
    values = {name: seen(array) for name, array in feed.items()}
    assert {name for name, value in values.items() if value.kind != "other"} == {"x"}
    changed = perturbation.apply(feed, values, generator())
    assert all(changed[name] is feed[name] for name in feed if name != "x")
    assert changed["x"].dtype == np.uint8 and changed["x"].shape == (1, 16, 16, 3)
    assert (changed["x"] is feed["x"]) == (not perturbation.applies(values))


def test_half_precision_does_not_overflow() -> None:
    array = np.array([[-60000, 0, 60000]], np.float16)
    assert np.isfinite(scaled(16)(array, seen(array), generator())).all()
