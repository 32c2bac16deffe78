"""Batches of feeds for training: shuffled through a bounded buffer, of equal shapes, at a position that is a number.

The order of an epoch follows from the seed and the epoch's number alone (and from the data), so a run that was cut
off goes on by walking to where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet, Feed
from onnxcompress.errors import DataError

BUFFER_FEEDS = 4096
BUFFER_BYTES = 256 << 20
"""What the buffer that shuffles holds at most, whichever is reached first."""

WINDOW = 16
"""Batches that are formed together, so that feeds of equal shapes meet."""


@dataclass(frozen=True)
class Batch:
    """What one process takes in one step.

    Attributes:
        parts: feeds that each go through the graph at once; of several shapes, or one by one, if they must.
        rows: rows of all parts.
    """

    parts: tuple[Feed, ...]
    rows: int


@dataclass(frozen=True)
class Position:
    """Where in the data a run is: `step` groups of batches of the epoch are done."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Batches:
    """Batches of a data set, without end.

    Attributes:
        data: walked anew in every epoch.
        size: rows of a batch; a feed with more is cut where `joined`.
        seed: of the order.
        joined: feeds of equal shapes are joined along axis 0; else every feed is a part of its own.
        processes, rank: each process takes every `processes`-th batch.
        most_elements: of the inputs of a part, where feeds are joined: larger ones are cut.
    """

    data: DataSet
    size: int
    seed: int = 0
    joined: bool = True
    processes: int = 1
    rank: int = 0
    most_elements: float = math.inf

    def stream(self, start: Position) -> Iterator[tuple[Position, Batch | None]]:
        """This process's batch of every step from `start` on, and the position after it.

        None where the last batches of an epoch do not go round: the others have one.

        Raises:
            DataError: the data has no feeds.
        """
        epoch, skipped = start.epoch, start.step
        while True:
            step = 0
            for step, group in enumerate(self._groups(epoch), 1):
                if step > skipped:
                    own = group[self.rank] if self.rank < len(group) else None
                    yield Position(epoch, step), None if own is None else self._joined(own)
            if step == 0:
                raise DataError(f"{self.data.name}: no feeds to train on")
            epoch, skipped = epoch + 1, 0

    def _groups(self, epoch: int) -> Iterator[list[list[Feed]]]:
        batches = self._batches(np.random.default_rng([self.seed, epoch]))
        while group := list(islice(batches, self.processes)):
            yield group

    def _batches(self, rng: np.random.Generator) -> Iterator[list[Feed]]:
        """Feeds of about `size` rows each, of equal shapes as far as those of a window allow."""
        window: list[Feed] = []
        rows = 0
        for feed in shuffled(self._pieces(), rng):
            window.append(feed)
            rows += row_count(feed)
            if rows >= WINDOW * self.size:
                yield from self._of_window(window, rng)
                window, rows = [], 0
        yield from self._of_window(window, rng)

    def _of_window(self, window: list[Feed], rng: np.random.Generator) -> Iterator[list[Feed]]:
        by_shape: dict[tuple[Any, ...], list[Feed]] = {}
        for feed in window:
            by_shape.setdefault(shape_key(feed) if self.joined else (), []).append(feed)
        full, rest = [], []
        for feeds in by_shape.values():
            *whole, last = list(self._filled(feeds))
            full += whole
            # What is left over of each shape shares a batch with others.
            rest += last
        batches = [*full, *self._filled(rest)]
        order = range(len(batches)) if len(by_shape) == 1 else rng.permutation(len(batches))
        yield from (batches[int(index)] for index in order)

    def _filled(self, feeds: Iterable[Feed]) -> Iterator[list[Feed]]:
        batch: list[Feed] = []
        rows = 0
        for feed in feeds:
            if batch and rows + row_count(feed) > self.size:
                yield batch
                batch, rows = [], 0
            batch.append(feed)
            rows += row_count(feed)
        if batch:
            yield batch

    def _pieces(self) -> Iterator[Feed]:
        for feed in self.data:
            rows = row_count(feed)
            if not self.joined or rows <= self.size:
                yield feed
                continue
            for at in range(0, rows, self.size):
                yield {name: array[at : at + self.size] for name, array in feed.items()}

    def _joined(self, feeds: Sequence[Feed]) -> Batch:
        rows = sum(row_count(feed) for feed in feeds)
        if not self.joined:
            return Batch(tuple(feeds), rows)
        by_shape: dict[tuple[Any, ...], list[Feed]] = {}
        for feed in feeds:
            by_shape.setdefault(shape_key(feed), []).append(feed)
        return Batch(tuple(part for same in by_shape.values() for part in self._cut(join(same))), rows)

    def _cut(self, feed: Feed) -> Iterator[Feed]:
        """A feed in parts of at most so many elements, or of one row."""
        rows = row_count(feed)
        elements = sum(array.size for array in feed.values())
        step = rows if elements <= self.most_elements else max(1, int(self.most_elements * rows / elements))
        for at in range(0, rows, step):
            yield feed if step == rows else {name: array[at : at + step] for name, array in feed.items()}


def shuffled(feeds: Iterable[Feed], rng: np.random.Generator) -> Iterator[Feed]:
    """The feeds in random order, through a buffer that is bounded in number and bytes."""
    buffer: list[Feed] = []
    held = 0
    for feed in feeds:
        buffer.append(feed)
        held += _bytes(feed)
        if len(buffer) > BUFFER_FEEDS or held > BUFFER_BYTES:
            at = int(rng.integers(len(buffer)))
            buffer[at], buffer[-1] = buffer[-1], buffer[at]
            held -= _bytes(buffer[-1])
            yield buffer.pop()
    yield from (buffer[int(index)] for index in rng.permutation(len(buffer)))


def join(feeds: Sequence[Feed]) -> Feed:
    """Feeds of equal shapes beyond axis 0, as one."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]} if len(feeds) > 1 else feeds[0]


def row_count(feed: Feed) -> int:
    """The size of axis 0 where all arrays share it, else 1."""
    sizes = {array.shape[0] if array.ndim else None for array in feed.values()}
    size = sizes.pop() if len(sizes) == 1 else None
    return size or 1


def shape_key(feed: Feed) -> tuple[Any, ...]:
    """Equal for feeds that can be joined."""
    return tuple((name, array.shape[1:], array.dtype.str) for name, array in sorted(feed.items()))


def can_join(model: ir.Model, feed: Feed) -> bool:
    """Do the declared inputs leave axis 0 open, and do all arrays share it?"""
    values = [value for value in model.graph.inputs if value.name in feed]
    is_open = all(
        value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int) for value in values
    )
    return is_open and len({array.shape[0] if array.ndim else None for array in feed.values()} - {None}) == 1 and all(
        array.ndim for array in feed.values()
    )  # fmt: skip


def _bytes(feed: Feed) -> int:
    return sum(array.nbytes for array in feed.values())
