"""What one walk over the data leaves behind: a few feeds, and what values each input takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxcompress.data import Array, Feed

IMAGE_CHANNELS = (1, 3, 4)
LEAST_SIDE = 8
"""A float input of rank 4 with this many channels, and sides of at least 8, is taken for an image."""

LEAST_IDS = 16
"""An integer input that takes more values than this is taken for ids (tokens, bytes); masks and types take fewer."""

MASK_LEVELS = 2
"""A float input that takes no more values than this is taken for a mask."""

MOST_IDS = 1 << 17
"""Ids that are remembered of an input; later ones are left as they are."""

SPECIAL_SHARE = 0.9
"""An id in this share of the feeds is special (start, end, padding) and is kept."""

SAMPLE_BYTES = 32 << 20
"""Large inputs are slow ones too: of 640x640 pictures six are perturbed, of 224x224 all 32."""


@dataclass
class Values:
    """The values that one input takes, over all feeds so far.

    Attributes:
        kind: floats, image (floats, or bytes), ids or other (masks, sizes, rates: never changed).
        axes: height and width of an image.
    """

    kind: str = "other"
    axes: tuple[int, int] = (2, 3)
    least: float = math.inf
    greatest: float = -math.inf
    _count: int = 0
    _sum: float = 0.0
    _squares: float = 0.0
    _feeds: int = 0
    _ids: Counter[int] = field(default_factory=Counter)
    _levels: set[float] = field(default_factory=set)

    def add(self, array: Array) -> None:
        """Take an array of the next feed into account."""
        self._feeds += 1
        axes = image_axes(array)
        if array.dtype.kind == "f" or (array.dtype == np.uint8 and axes is not None):
            self._add_floats(array[np.isfinite(array)].astype(np.float64), axes)
        elif array.dtype.kind in "iu" and array.ndim:
            self._add_ids(array)

    @property
    def mean(self) -> float:
        return self._sum / self._count if self._count else 0.0

    @property
    def std(self) -> float:
        """Standard deviation over all elements of all feeds; 0 where there are none."""
        return math.sqrt(max(0.0, self._squares / self._count - self.mean**2)) if self._count else 0.0

    def ordinary(self) -> Array:
        """Ids that may take the place of others: those seen, without the special ones; int64, sorted."""
        most = SPECIAL_SHARE * self._feeds
        return np.array(sorted(i for i, feeds in self._ids.items() if feeds < most), np.int64)

    def common(self) -> tuple[int, int, int]:
        """The least, the greatest, and the most usual id seen; that one is no special id, if there are others."""
        ordinary = self.ordinary().tolist() or list(self._ids)
        return min(self._ids), max(self._ids), max(ordinary, key=lambda i: self._ids[i])

    def _add_floats(self, finite: Array, axes: tuple[int, int] | None) -> None:
        if not finite.size:
            return
        if len(self._levels) <= MASK_LEVELS:
            self._levels.update(np.unique(finite)[: MASK_LEVELS + 1].tolist())
        if axes is not None:
            self.kind, self.axes = "image", axes
        elif len(self._levels) > MASK_LEVELS:
            self.kind = "floats"
        self._count += finite.size
        self._sum += float(finite.sum())
        self._squares += float(np.sum(finite**2))
        self.least = min(self.least, float(finite.min()))
        self.greatest = max(self.greatest, float(finite.max()))

    def _add_ids(self, array: Array) -> None:
        for value in np.unique(array).tolist():
            if value in self._ids or len(self._ids) < MOST_IDS:
                self._ids[value] += 1
        if len(self._ids) > LEAST_IDS and array.shape[-1] > 1:
            self.kind = "ids"


def image_axes(array: Array) -> tuple[int, int] | None:
    """The axes of height and width where an array looks like images, NCHW or NHWC."""
    if array.ndim != 4:
        return None
    for channel, axes in ((1, (2, 3)), (3, (1, 2))):
        if array.shape[channel] in IMAGE_CHANNELS and min(array.shape[axis] for axis in axes) >= LEAST_SIDE:
            return axes
    return None


class Sample:
    """At most `size` feeds, each as likely to be kept as any other (reservoir sampling), and what values they take.

    They are fewer where they would take more than 32 MB, but one at least.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.feeds: list[Feed] = []
        self.values: dict[str, Values] = {}
        self.seen = 0
        self._size = size
        self._rng = np.random.default_rng(seed)

    def add(self, feed: Mapping[str, Array]) -> None:
        """Take a feed into account, and keep it perhaps."""
        for name, array in feed.items():
            self.values.setdefault(name, Values()).add(array)
        held = sum(array.nbytes for array in feed.values())
        self._size = max(1, min(self._size, SAMPLE_BYTES // max(1, held)))
        del self.feeds[self._size :]
        self.seen += 1
        if len(self.feeds) < min(self._size, self.seen):
            self.feeds.append(dict(feed))
            return
        slot = int(self._rng.integers(self.seen))
        if slot < self._size:
            self.feeds[slot] = dict(feed)
