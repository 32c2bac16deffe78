"""Budgets: steps that would not end in time are not begun."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxcompress.budget import SAFETY, Budget, OutOfTime
from onnxcompress.pipeline import compress
from tests.models import images

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("quick")


def test_a_step_must_end_before_the_reserve_begins() -> None:
    budget = Budget(seconds=10, reserve=2)
    budget.need(7.5 / SAFETY - 0.1)
    with pytest.raises(OutOfTime):
        budget.need(7.5 / SAFETY + 0.1)
    assert budget.left() == pytest.approx(7.5, abs=0.1)


def test_without_a_budget_there_is_always_time() -> None:
    budget = Budget(reserve=1e9)
    budget.need(1e12)
    assert not budget.limited


def test_a_budget_too_short_does_the_least_and_says_so(wide: Path, tmp_path: Path) -> None:
    def slow(run: Callable[[dict[str, Array]], list[Array]]) -> float:
        time.sleep(1)
        return 1.0

    started = time.monotonic()
    found = compress(wide, tmp_path / "o.onnx", data=images(4, 32), evaluate=slow, budget=0.5)
    assert time.monotonic() - started < 6
    assert found.recipe["mode"] == "original"
    assert found.interrupted
    assert any("the budget of 0.5 s is too short" in note for note in found.notes)


def test_a_step_that_would_not_end_in_time_is_not_begun(wide: Path, tmp_path: Path) -> None:
    """Every score takes 2 s: with 7 s, no more than two candidates can be scored."""
    scores = []

    def slow(run: Callable[[dict[str, Array]], list[Array]]) -> float:
        time.sleep(2)
        scores.append(1.0)
        return 1.0

    started = time.monotonic()
    found = compress(wide, tmp_path / "o.onnx", data=images(4, 32), evaluate=slow, budget=7)
    assert time.monotonic() - started < 7.7
    assert 1 <= len(scores) <= 3
    assert found.within_bound
