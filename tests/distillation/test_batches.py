"""Batches: every feed once an epoch, in an order that a position tells, equal shapes together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcompress.data import DataSet, Feed
from onnxcompress.distillation import batches as module
from onnxcompress.distillation.batches import Batch, Batches, Position, can_join, row_count, shuffled
from onnxcompress.errors import DataError


def of_lengths(lengths: list[int], rows: int = 1) -> DataSet:
    """Feed k: `rows` rows of the length given, all k."""
    return DataSet(lambda: [{"x": np.full((rows, length), k, np.float32)} for k, length in enumerate(lengths)])


def epoch(batches: Batches, number: int = 0) -> list[tuple[Position, Batch | None]]:
    found: list[tuple[Position, Batch | None]] = []
    for position, batch in batches.stream(Position(number)):
        if position.epoch != number:
            return found
        found.append((position, batch))
    return found


def contents(batch: Batch | None) -> list[int]:
    """The numbers of the feeds of a batch."""
    return [] if batch is None else [int(row[0]) for part in batch.parts for row in part["x"]]


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=60), size=st.integers(1, 9), processes=st.integers(1, 3)
)
def test_every_feed_comes_once_an_epoch(lengths: list[int], size: int, processes: int) -> None:
    parts = [epoch(Batches(of_lengths(lengths), size, 3, True, processes, rank)) for rank in range(processes)]
    seen = [k for found in parts for _, batch in found for k in contents(batch)]
    assert sorted(seen) == list(range(len(lengths)))
    # All processes take as many steps, and only at the end of an epoch one may have nothing.
    assert len({len(found) for found in parts}) == 1
    assert all(batch is not None for found in parts for _, batch in found[:-1])
    for batch in (batch for found in parts for _, batch in found if batch is not None):
        assert batch.rows == len(contents(batch)) <= size
        shapes = [part["x"].shape[1] for part in batch.parts]
        assert len(set(shapes)) == len(shapes)


def test_equal_shapes_come_together() -> None:
    """Of 64 feeds of 4 shapes in batches of 4, few batches are mixed: the 16 of each shape fill 4."""
    found = epoch(Batches(of_lengths([1, 2, 3, 4] * 16), 4, 0))
    assert len(found) == 16
    assert sum(len(batch.parts) > 1 for _, batch in found if batch is not None) <= 4


def test_the_order_follows_from_seed_and_epoch() -> None:
    data = of_lengths([1] * 40)
    orders = [
        [contents(batch) for _, batch in epoch(Batches(data, 8, seed), number)]
        for seed, number in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert orders[0] == orders[1] and orders[0] != orders[2] and orders[0] != orders[3]
    assert orders[0] != [list(range(i, i + 8)) for i in range(0, 40, 8)]


@given(done=st.integers(0, 25))
@settings(deadline=None, max_examples=20)
def test_a_run_goes_on_where_it_was(done: int) -> None:
    batches = Batches(of_lengths([1, 1, 2] * 11), 4, 0)
    whole = list(islice(batches.stream(Position()), 30))
    position = whole[done - 1][0] if done else Position()
    again = list(islice(batches.stream(position), 30 - done))
    assert [p for p, _ in again] == [p for p, _ in whole[done:]]
    assert [contents(b) for _, b in again] == [contents(b) for _, b in whole[done:]]


def test_two_processes_take_what_one_takes_in_batches_of_twice_the_size() -> None:
    data = of_lengths([1] * 64)
    one = [set(contents(batch)) for _, batch in epoch(Batches(data, 8, 0))]
    two = [[set(contents(b)) for _, b in epoch(Batches(data, 4, 0, True, 2, rank))] for rank in (0, 1)]
    assert one == [a | b for a, b in zip(*two, strict=True)]


def test_feeds_that_cannot_be_joined_are_parts_of_their_own() -> None:
    ((_, batch), *_) = epoch(Batches(of_lengths([2] * 6), 4, 0, joined=False))
    assert batch is not None and [part["x"].shape for part in batch.parts] == [(1, 2)] * 4
    assert batch.rows == 4


def test_large_feeds_are_cut() -> None:
    found = epoch(Batches(of_lengths([1, 1], rows=10), 4, 0))
    assert [batch.rows for _, batch in found if batch is not None] == [4, 4, 4, 4, 4]
    found = epoch(Batches(of_lengths([1, 1], rows=10), 4, 0, joined=False))
    assert [batch.rows for _, batch in found if batch is not None] == [10, 10]


def test_data_without_feeds_is_an_error() -> None:
    with pytest.raises(DataError, match="no feeds to train on"):
        next(Batches(of_lengths([]), 4).stream(Position()))


def test_the_buffer_that_shuffles_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_FEEDS", 8)
    drawn = 0

    def feeds() -> Feed:
        nonlocal drawn
        drawn += 1
        return {"x": np.full((1, 1), drawn, np.float32)}

    out = shuffled((feeds() for _ in range(50)), np.random.default_rng(0))
    first = [next(out) for _ in range(5)]
    assert drawn <= 8 + 5
    values = [float(feed["x"][0, 0]) for feed in (*first, *out)]
    assert sorted(values) == list(range(1, 51)) and values != sorted(values)


def test_the_buffer_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 400)
    drawn: list[int] = []

    def feeds() -> Iterator[Feed]:
        for number in range(20):
            drawn.append(number)
            yield {"x": np.zeros(25, np.float32)}

    next(shuffled(feeds(), np.random.default_rng(0)))
    assert len(drawn) == 5


def test_rows() -> None:
    assert row_count({"x": np.zeros((3, 2)), "y": np.zeros((3,))}) == 3
    assert row_count({"x": np.zeros((3, 2)), "y": np.zeros((4,))}) == 1
    assert row_count({"x": np.zeros((3, 2)), "rate": np.zeros(())}) == 1


@pytest.mark.parametrize(
    ("inputs", "feed", "can"),
    [
        ("float[N, 4] x", {"x": (1, 4)}, True),
        ("float[1, 4] x", {"x": (1, 4)}, False),
        ("float[N, 4] x, float[2, N] state", {"x": (1, 4), "state": (2, 1)}, False),
        ("float[N, 4] x, float[M, N] state", {"x": (1, 4), "state": (2, 1)}, False),
        ("float[N, 4] x, float rate", {"x": (1, 4), "rate": ()}, False),
    ],
)
def test_what_can_be_joined(inputs: str, feed: dict[str, tuple[int, ...]], can: bool) -> None:
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => (float[N, 4] y) {{ y = Relu (x) }}'
    )
    assert can_join(model, {name: np.zeros(shape, np.float32) for name, shape in feed.items()}) is can


def test_parts_are_cut_to_so_many_elements() -> None:
    data = of_lengths([10] * 8)
    _, whole = next(Batches(data, 8).stream(Position()))
    _, cut = next(Batches(data, 8, most_elements=35).stream(Position()))
    _, single = next(Batches(data, 8, most_elements=3).stream(Position()))
    assert whole is not None and cut is not None and single is not None
    assert [len(part["x"]) for part in cut.parts] == [3, 3, 2] and len(single.parts) == 8 == single.rows
    for batch in (cut, single):
        np.testing.assert_array_equal(np.concatenate([part["x"] for part in batch.parts]), whole.parts[0]["x"])
