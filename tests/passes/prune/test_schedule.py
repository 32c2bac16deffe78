"""The cubic schedule."""

from __future__ import annotations

import itertools

import pytest

from onnxcompress.passes.prune import sparsity_at


def test_from_first_to_last() -> None:
    values = [sparsity_at(step, 10, 0.8, 0.2) for step in range(12)]
    assert values[0] == pytest.approx(0.2)
    assert values[10] == values[11] == pytest.approx(0.8)
    assert values[5] == pytest.approx(0.8 - 0.6 / 8)
    rises = [b - a for a, b in itertools.pairwise(values[:11])]
    assert all(rise > 0 for rise in rises) and rises == sorted(rises, reverse=True)


@pytest.mark.parametrize(("step", "steps", "final", "initial"), [(-1, 5, 0.5, 0), (0, 0, 0.5, 0), (0, 5, 1.5, 0)])
def test_what_makes_no_sense_is_refused(step: int, steps: int, final: float, initial: float) -> None:
    with pytest.raises(ValueError):
        sparsity_at(step, steps, final, initial)
