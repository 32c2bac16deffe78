"""The guard against learning rates that are too high."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxcompress.distillation.guard import FIRST, FIRST_SHARE, MOST, RECENT, Guard
from onnxcompress.distiller import distill
from tests.distillation.networks import feeds, pruned


def first_blow_up(losses: list[float]) -> int | None:
    guard = Guard()
    return next((index for index, loss in enumerate(losses) if guard.is_blown_up(loss)), None)


def test_losses_that_rise_far_above_the_start_are_noticed() -> None:
    assert first_blow_up([1.0] * 30) is None
    assert first_blow_up([1.0] * 10 + [1.9] * 30) is None
    assert first_blow_up([1.0] * 10 + [9.0] + [1.0] * 30) is None  # one bad batch
    assert first_blow_up([1.0] * 10 + [3.0] * 30) == 14
    assert first_blow_up([1.0] * FIRST + [2.1] * 30) == FIRST + RECENT - 1
    assert first_blow_up([1.0] * FIRST + [5.0] * 30) == FIRST + 3
    assert first_blow_up([1.0] * FIRST + [100.0]) == FIRST
    assert first_blow_up([1.0, math.nan]) == 1
    assert first_blow_up([1.0] * FIRST + [0.1, 0.1, *[0.5] * 30]) is None  # above the least, below the start


def test_batches_that_differ_are_no_blow_up() -> None:
    """Losses as they were on texts in batches of about one length: the first ones were easy."""
    start = [1.16, 0.47, 2.1, 3.3, 0.9, 1.4, 2.6, 0.6]
    assert first_blow_up(start + [2.8, 1.6, 3.1, 2.3, 3.1, 2.7, 3.3, 3.1] * 4) is None


def test_short_runs_take_fewer_first_losses() -> None:
    assert [Guard.of(steps).wanted for steps in (None, 1000, 80, 30, 3)] == [FIRST, FIRST, FIRST, 3, 1]
    guard = Guard.of(30)
    shares = []
    for loss in (1.0, 1.0, 1.0, 1.0):
        shares.append(guard.share)
        guard.is_blown_up(loss)
    assert shares == [FIRST_SHARE] * 3 + [1.0]


def test_each_time_the_rate_is_smaller_until_none_is_left() -> None:
    guard = Guard([1.0] * FIRST)
    for times in range(MOST):
        assert not guard.gives_up and guard.times == times
        found = [guard.is_blown_up(2.1) for _ in range(RECENT)]
        assert found == [False] * (RECENT - 1) + [True]
        factor = guard.factor
        guard.back_off()
        assert guard.factor < 0.5 * factor
    assert guard.gives_up and not any(guard.is_blown_up(5.0) for _ in range(20))
    assert guard.is_blown_up(math.inf)


def test_a_rate_that_is_far_too_high_is_made_smaller(teacher: ir.Model) -> None:
    """The student learns all the same."""
    found = distill(pruned(teacher, 0.5), teacher, feeds(600), steps=60, learning_rate=0.3)
    assert any(note.startswith("the loss rose to 2 times what it was at the start") for note in found.notes)
    assert found.start is not None and found.score is not None
    assert found.score > found.start + 0.3 * (1 - found.start)
    assert found.history[-1]["rate"] < 0.3 * 0.3 and found.steps == 60


def test_a_rate_that_fits_stays(teacher: ir.Model) -> None:
    found = distill(pruned(teacher), teacher, feeds(200), steps=20)
    assert not any("learning rate" in note for note in found.notes)
