"""What is done to a feed to see whether the result still does what the original does.

Each perturbation changes the inputs of the kinds it is meant for and leaves the others (masks, sizes, rates) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxcompress.data import Array, Feed
from onnxcompress.verification.sample import Values

Change = Callable[[Array, Values, np.random.Generator], Array]
FLOATS, IMAGES, IDS = {"floats", "image"}, {"image"}, {"ids"}


@dataclass(frozen=True)
class Perturbation:
    """A change of the inputs of some kinds.

    Attributes:
        rule: agreement: the outputs must agree with the original's; finite: they must be finite where those are.
    """

    name: str
    kinds: frozenset[str]
    change: Change
    rule: Literal["agreement", "finite"]

    def applies(self, values: Mapping[str, Values]) -> bool:
        """Is there an input of its kind?"""
        return any(value.kind in self.kinds for value in values.values())

    def apply(self, feed: Feed, values: Mapping[str, Values], rng: np.random.Generator) -> Feed:
        """A feed with the inputs changed; `feed` stays as it is."""
        return {
            name: self.change(array, values[name], rng) if values[name].kind in self.kinds and array.size else array
            for name, array in feed.items()
        }


def noise(level: float) -> Change:
    """Gaussian noise of `level` standard deviations of the input, cut to the range that the data has."""

    def change(array: Array, values: Values, rng: np.random.Generator) -> Array:
        noisy = array.astype(np.float64) + rng.normal(0, level * values.std, array.shape)
        return _typed(np.clip(noisy, values.least, values.greatest), array)

    return change


def blur(kernel: tuple[float, ...]) -> Change:
    """A separable blur of images over height and width; borders repeat the outermost pixels."""
    weights = np.array(kernel) / sum(kernel)
    reach = len(kernel) // 2

    def change(array: Array, values: Values, rng: np.random.Generator) -> Array:
        blurred = array.astype(np.float64)
        for axis in values.axes:
            padding = [(reach, reach) if i == axis else (0, 0) for i in range(array.ndim)]
            padded = np.pad(blurred, padding, mode="edge")
            length = array.shape[axis]
            blurred = sum(
                (weight * np.take(padded, range(k, k + length), axis) for k, weight in enumerate(weights)),
                start=np.zeros(array.shape),
            )
        return _typed(blurred, array)

    return change


def replaced_ids(share: float) -> Change:
    """A share of the ids replaced by others seen in the data; special ids stay, and none but seen ones come in."""

    def change(array: Array, values: Values, rng: np.random.Generator) -> Array:
        ordinary = values.ordinary()
        if not ordinary.size:
            return array
        chosen = (rng.random(array.shape) < share) & np.isin(array, ordinary)
        return np.where(chosen, rng.choice(ordinary, array.shape), array).astype(array.dtype)

    return change


def scaled(factor: float, *, clipped: bool = False) -> Change:
    """Distances from the mean times `factor`; `clipped` cuts to the range that the data has."""

    def change(array: Array, values: Values, rng: np.random.Generator) -> Array:
        larger = values.mean + factor * (array.astype(np.float64) - values.mean)
        return _typed(np.clip(larger, values.least, values.greatest) if clipped else larger, array)

    return change


def saturated(array: Array, values: Values, rng: np.random.Generator) -> Array:
    """Every value at the least or at the greatest that the data has, whichever side of the mean it is on."""
    return _typed(np.where(array < values.mean, values.least, values.greatest), array)


def constant(value: Callable[[Values], float]) -> Change:
    """Every element the same."""

    def change(array: Array, values: Values, rng: np.random.Generator) -> Array:
        return _typed(np.full(array.shape, value(values)), array)

    return change


def one_id(index: int) -> Change:
    """Every id the same: the least, the greatest or the most usual of those seen."""

    def change(array: Array, values: Values, rng: np.random.Generator) -> Array:
        return np.full(array.shape, values.common()[index], array.dtype)

    return change


def _typed(array: Array, like: Array) -> Array:
    """The type of `like`, rounded and cut to it for integers."""
    if like.dtype.kind == "f":
        limits = np.finfo(like.dtype)
        return np.clip(array, float(limits.min), float(limits.max)).astype(like.dtype)
    span = np.iinfo(like.dtype)
    return np.clip(np.rint(array), span.min, span.max).astype(like.dtype)


def _floats(name: str, change: Change, rule: Literal["agreement", "finite"]) -> Perturbation:
    return Perturbation(name, frozenset(FLOATS), change, rule)


PERTURBATIONS = (
    *(_floats(f"noise {level:g} std", noise(level), "agreement") for level in (0.05, 0.1, 0.25, 0.5)),
    Perturbation("blur 3x3 box", frozenset(IMAGES), blur((1, 1, 1)), "agreement"),
    Perturbation("blur 5x5 gaussian", frozenset(IMAGES), blur((1, 4, 6, 4, 1)), "agreement"),
    *(
        Perturbation(f"{share:.0%} of ids replaced", frozenset(IDS), replaced_ids(share), "agreement")
        for share in (0.05, 0.15, 0.5)
    ),
    _floats("x1.5 within range", scaled(1.5, clipped=True), "agreement"),
    _floats("all at the limits", saturated, "finite"),
    _floats("x4", scaled(4), "finite"),
    _floats("x16", scaled(16), "finite"),
    _floats("zeros", constant(lambda values: 0.0), "finite"),
    _floats("constant mean", constant(lambda values: values.mean), "finite"),
    _floats("constant least", constant(lambda values: values.least), "finite"),
    _floats("constant greatest", constant(lambda values: values.greatest), "finite"),
    *(
        Perturbation(f"one id: {which}", frozenset(IDS), one_id(index), "finite")
        for index, which in enumerate(("least", "greatest", "most usual"))
    ),
)
"""In the order of the table."""
