"""How sparsity is spread over layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxcompress.passes.prune import Point, allocate_by_error, relative_scores
from onnxcompress.passes.prune.allocation import MOST_REMOVED, allocate_globally


def test_relative_scores_are_shares_of_what_is_no_smaller() -> None:
    scores = np.array([[4.0, 1.0], [3.0, 2.0]])
    assert np.allclose(relative_scores(scores), [[1, 1 / 10], [3 / 7, 2 / 9]])
    assert not relative_scores(np.zeros(3)).any()
    assert np.allclose(relative_scores(scores), relative_scores(1000 * scores))


def test_the_least_anywhere_go() -> None:
    rng = np.random.default_rng(0)
    scores = {"a": rng.random((10, 10)), "b": rng.random((5, 8)) + 0.3}
    counts = allocate_globally(scores, 0.4)
    assert sum(counts.values()) == 56
    limit = np.sort(np.concatenate([s.ravel() for s in scores.values()]))[55]
    assert counts == {name: int((s <= limit).sum()) for name, s in scores.items()}


def test_no_layer_loses_everything() -> None:
    scores = {"poor": np.full(100, 1e-6), "rich": np.ones(100)}
    counts = allocate_globally(scores, 0.8)
    assert counts["poor"] == int(MOST_REMOVED * 100)
    assert sum(counts.values()) == 160


def test_by_error_is_the_best_of_all_choices() -> None:
    grid = [0.25, 0.5, 0.75]
    errors: dict[str, list[float]] = {"a": [0.1, 0.4, 1.6], "b": [0.01, 0.03, 0.5], "c": [1, 3, 9]}
    sizes = {"a": 100, "b": 100, "c": 100}
    curves = {name: [Point(s, e) for s, e in zip(grid, values, strict=True)] for name, values in errors.items()}
    ratios = allocate_by_error(curves, sizes, 0.25)
    assert sum(ratios.values()) == pytest.approx(0.75)

    def cost(choice: dict[str, float]) -> float:
        return sum(float(np.interp(s, [0, *grid], [0, *errors[name]])) for name, s in choice.items())

    steps = [0.0, 0.25, 0.5, 0.75]
    best = min(
        cost(dict(zip(errors, choice, strict=True)))
        for choice in itertools.product(steps, repeat=3)
        if sum(choice) == 0.75
    )
    assert cost(ratios) == pytest.approx(best)
    assert ratios == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.0})


def test_by_error_takes_the_last_step_in_part_and_counts_weights() -> None:
    curves = {"small": [Point(0.5, 0.01), Point(0.9, 0.02)], "large": [Point(0.5, 1.0), Point(0.9, 5.0)]}
    ratios = allocate_by_error(curves, {"small": 10, "large": 90}, 0.2)
    assert ratios["small"] == pytest.approx(0.9)
    assert ratios["large"] == pytest.approx((20 - 9) / 90)


def test_curves_that_end_too_early_are_refused() -> None:
    with pytest.raises(ValueError, match="do not reach a sparsity of"):
        allocate_by_error({"a": [Point(0.5, 1.0)]}, {"a": 10}, 0.8)


def test_a_curve_that_is_not_convex_is_cut_across() -> None:
    curves = {"a": [Point(0.4, 1.0), Point(0.8, 1.1)], "b": [Point(0.4, 0.8), Point(0.8, 2.0)]}
    ratios = allocate_by_error(curves, {"a": 1, "b": 1}, 0.4)
    assert ratios == pytest.approx({"a": 0.8, "b": 0.0})
