"""Learning rate and moving average."""

from __future__ import annotations

import pytest
import torch

from onnxcompress.distillation.schedule import LAST, MovingAverage, rate_at


def test_the_rate_rises_then_falls_as_half_a_cosine() -> None:
    assert [rate_at(done, 0.2) for done in (0.05, 0.1, 0.2)] == pytest.approx([0.25, 0.5, 1.0])
    assert rate_at(0.6, 0.2) == pytest.approx(LAST + (1 - LAST) / 2)
    assert rate_at(1.0, 0.2) == pytest.approx(LAST) == rate_at(1.5, 0.2)
    falling = [rate_at(0.2 + i / 100, 0.2) for i in range(81)]
    assert falling == sorted(falling, reverse=True)
    assert rate_at(1e-9, 0.0) == pytest.approx(1.0)


def test_the_average_begins_quickly_and_then_decays() -> None:
    average = MovingAverage({"w": torch.zeros(2)}, 0.9)
    expected = 0.0
    for step in range(1, 200):
        average.update({"w": torch.full((2,), float(step))}, step)
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * step
    assert average.average["w"].tolist() == pytest.approx([expected] * 2, rel=1e-5)
    # With a constant decay of 0.9 the average lags by 9 steps.
    assert expected == pytest.approx(199 - 9, abs=0.1)


def test_the_average_is_no_view_of_the_weights() -> None:
    weight = torch.zeros(2)
    average = MovingAverage({"w": weight}, 0.9)
    weight += 1
    assert average.average["w"].tolist() == [0, 0]
