"""Open dimensions of a model's inputs, and feeds cut or stacked along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcompress.data import Array, Feed
from onnxcompress.verification.structure import fed_inputs

UNNAMED = {"", "?"}
BATCH = "batch"


@dataclass(frozen=True)
class Axis:
    """One open dimension.

    Attributes:
        places: axis by input.
    """

    name: str
    places: dict[str, int]

    def sizes(self, feed: Feed) -> set[int]:
        """The sizes a feed has there: one, unless the model gives one name to several sizes."""
        return {feed[name].shape[axis] for name, axis in self.places.items()}

    def cut(self, feed: Feed, size: int) -> Feed:
        """The feed with its first `size` along this dimension."""
        return {
            name: np.take(array, range(size), self.places[name]) if name in self.places else array
            for name, array in feed.items()
        }


def open_axes(model: ir.Model) -> list[Axis]:
    """The open dimensions of the inputs; one that several inputs name is one. The batch comes first, if it is open.

    The batch is the first dimension of the first input that has one. Where it bears no name, it is taken for the first
    unnamed one of every other input too (a recurrent state may have it second).
    """
    named: dict[str, dict[str, int]] = {}
    for value in fed_inputs(model):
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, int) and dim >= 0:
                continue
            symbol = dim.value if isinstance(dim, ir.SymbolicDim) and isinstance(dim.value, str) else ""
            key = f"{value.name}[{axis}]" if symbol in UNNAMED or symbol.startswith("-") else symbol
            named.setdefault(key, {}).setdefault(str(value.name), axis)
    first = next((key for key, places in named.items() if 0 in places.values()), None)
    if first is None:
        return [Axis(name, places) for name, places in named.items()]
    batch = named.pop(first)
    if first.endswith("[0]"):
        for value in fed_inputs(model):
            unnamed = next((key for key in named if key.startswith(f"{value.name}[")), None)
            if str(value.name) not in batch and unnamed is not None:
                batch |= named.pop(unnamed)
    return [Axis(BATCH, batch), *(Axis(name, places) for name, places in named.items())]


def stacked(feeds: Sequence[Feed], axes: Sequence[Axis], most: int) -> tuple[list[Feed], Feed]:
    """Feeds that go together, and one feed of them all.

    Those go together with the first that are equal to it in the inputs without a batch, and that can be cut to the
    least size that any of them has along each other open dimension.

    Args:
        axes: of the model; the first is the batch.
        most: feeds that are taken.

    Returns:
        the feeds as they were cut, at least one, and their stack.
    """
    batch, others = axes[0], axes[1:]
    fitted = [feed for feed in feeds if _same_beside(feed, feeds[0], batch)][:most]
    for axis in others:
        least = min(min(axis.sizes(feed)) for feed in fitted)
        fitted = [axis.cut(feed, least) for feed in fitted]
    fitted = [feed for feed in fitted if _frames(feed, batch) == _frames(fitted[0], batch)]
    together = {
        name: np.concatenate([feed[name] for feed in fitted], batch.places[name]) if name in batch.places else array
        for name, array in fitted[0].items()
    }
    return fitted, together


def _same_beside(feed: Feed, other: Feed, batch: Axis) -> bool:
    return all(name in batch.places or np.array_equal(array, other[name]) for name, array in feed.items())


def _frames(feed: Feed, batch: Axis) -> dict[str, tuple[int, ...]]:
    """Shapes without the batch dimension."""
    return {name: tuple(np.delete(feed[name].shape, axis).tolist()) for name, axis in batch.places.items()}


def joined(parts: Sequence[Array], whole: Array) -> Array | None:
    """Outputs of single runs put together as the batch's are; None where no axis does it."""
    for axis in range(whole.ndim):
        if len({np.delete(part.shape, axis).tobytes() for part in parts if part.ndim == whole.ndim}) == 1:
            together = np.concatenate(parts, axis)
            if together.shape == whole.shape:
                return together
    return None
