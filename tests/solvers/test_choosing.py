"""Which weights go: the solvers against enumeration of all masks, and against each other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from onnxcompress.passes.prune import GRIDS, Grid, Layer
from onnxcompress.passes.prune.patterns import choose, expand_units, follows, unit_count
from onnxcompress.solvers import PruneLayers
from onnxcompress.solvers.admm import choose_by_admm
from onnxcompress.solvers.least_squares import damped, output_error, refit
from onnxcompress.solvers.obs import Masking, block_scores, choose_by_obs, inverse_factor, sweep
from tests.solvers.test_least_squares import correlated, exact, second_moments

Array = np.ndarray[Any, Any]


def layer(outputs: int, inputs: int) -> Layer:
    return Layer("l", "MatMul", "w", "x", inputs, outputs)


def problem(outputs: int, inputs: int, seed: int = 0) -> tuple[Array, Array]:
    """A weight [1, N, K] and damped second moments [1, K, K]."""
    weight = np.random.default_rng(seed).standard_normal((1, outputs, inputs))
    return weight, damped(second_moments(correlated(6 * inputs, inputs, seed + 1)))


def test_the_factor_is_that_of_the_inverse() -> None:
    _, moments = problem(1, 10)
    factor = inverse_factor(moments[0])
    assert np.allclose(factor.T @ factor @ moments[0], np.eye(10), atol=1e-8)
    assert np.array_equal(factor, np.triu(factor))


def test_one_weight_is_the_brain_surgeons() -> None:
    """w^2 / (H^-1)_ii is the error of the exact least squares without that weight."""
    weight, moments = problem(1, 7)
    inverse = np.linalg.inv(moments[0])
    for i in range(7):
        kept = np.ones((1, 1, 7), bool)
        kept[..., i] = False
        new = refit(weight, weight, kept, moments, 20)
        error = output_error(new, weight, moments) * float(((weight @ moments) * weight).sum())
        assert error == pytest.approx(weight[0, 0, i] ** 2 / inverse[i, i], rel=1e-8)


@pytest.mark.parametrize("rows", [1, 2])
def test_block_scores_are_the_errors_of_exact_least_squares(rows: int) -> None:
    weight, moments = problem(4, 12)
    grid = Grid(rows, 4)
    scores = block_scores(weight[0], np.linalg.inv(moments[0]), grid)
    assert scores.shape == (4 // rows, 3)
    whole = float(((weight @ moments) * weight).sum())
    for place in itertools.product(range(4 // rows), range(3)):
        units = np.ones(scores.shape, bool)
        units[place] = False
        kept = expand_units(units, grid, (4, 12))[None]
        error = output_error(refit(weight, weight, kept, moments, 30), weight, moments) * whole
        assert error == pytest.approx(scores[place], rel=1e-7)


def test_blocks_at_the_edges_count_what_they_have() -> None:
    weight, moments = problem(5, 10)
    scores = block_scores(weight[0], np.linalg.inv(moments[0]), GRIDS["block4x4"])
    assert scores.shape == (2, 3) and (scores > 0).all()


def test_the_sweep_is_the_same_in_columns_of_any_number() -> None:
    weight, moments = problem(6, 40)
    factor = inverse_factor(moments[0])
    whole, parts = (sweep(weight[0], factor, _Fixed(), width) for width in (40, 8))
    assert np.allclose(whole, parts, atol=1e-9)
    assert not whole[:, ::3].any()


class _Fixed:
    """Every third column goes."""

    def begin(self, start: int, columns: Array, diagonal: Array) -> None: ...

    def settle(self, column: int, left: Array, diagonal: Array) -> Array:
        kept: Array = left[:, 0] * (column % 3 > 0)
        return kept


def test_the_sweep_compensates() -> None:
    weight, moments = problem(8, 32)
    rule = Masking(Grid(), 0.5, (8, 32))
    new = sweep(weight[0], inverse_factor(moments[0]), rule)
    assert np.array_equal(new != 0, rule.kept)
    plain = output_error(np.where(rule.kept, weight[0], 0)[None], weight, moments)
    swept = output_error(new[None], weight, moments)
    best = output_error(refit(weight, weight, rule.kept[None], moments, 60), weight, moments)
    assert best <= swept < 0.85 * plain


def brute_force(weight: Array, moments: Array, masks: list[Array]) -> float:
    """The least error of any mask [K] of one row, with exact compensation."""
    return min(output_error(refit(weight, weight, mask[None, None], moments, 20), weight, moments) for mask in masks)


@pytest.mark.parametrize("solver", ["admm", "obs"])
def test_close_to_the_best_of_all_masks(solver: Any) -> None:
    ratios = []
    for seed in range(12):
        weight, moments = problem(1, 8, seed=10 * seed)
        masks = [np.isin(np.arange(8), kept) for kept in itertools.combinations(range(8), 4)]
        best = brute_force(weight, moments, masks)
        new = PruneLayers(Grid(), {"l": 0.5}, solver)(layer(1, 8), weight, moments)
        assert (new == 0).sum() == 4
        ratios.append(output_error(new, weight, moments) / best)
    assert min(ratios) > 1 - 1e-3
    assert np.median(ratios) < (1.3 if solver == "admm" else 2.5)


@pytest.mark.parametrize("solver", ["admm", "obs"])
@pytest.mark.parametrize("pattern", list(GRIDS))
def test_every_pattern_is_obeyed_and_beats_magnitude(pattern: str, solver: Any) -> None:
    weight, moments = problem(32, 48)
    grid, removed = GRIDS[pattern], 0.5
    prune = PruneLayers(grid, {"l": removed}, solver)
    new = prune(layer(32, 48), weight, moments)
    assert follows(new[0] != 0, grid)
    units = round(removed * unit_count(grid, (32, 48)))
    assert abs((new == 0).mean() - 0.5) < 0.02
    mask = choose(weight[0] ** 2, grid, units)
    magnitude = np.where(mask, weight[0], 0)[None]
    fitted = refit(weight, weight, mask[None], moments)
    error = output_error(new, weight, moments)
    assert error < 0.8 * output_error(magnitude, weight, moments)
    if solver == "admm":
        assert error < 0.95 * output_error(fitted, weight, moments)
    assert prune.errors["l"] == pytest.approx(error)


@pytest.mark.parametrize("pattern", list(GRIDS))
def test_admm_is_ahead_of_one_pass(pattern: str) -> None:
    errors = dict.fromkeys(("admm", "obs"), 0.0)
    for seed in range(3):
        weight, moments = problem(32, 64, seed)
        for solver in ("admm", "obs"):
            new = PruneLayers(GRIDS[pattern], {"l": 0.5}, solver)(layer(32, 64), weight, moments)
            errors[solver] += output_error(new, weight, moments)
    assert errors["admm"] < errors["obs"]


def test_masks_made_before_are_only_refitted() -> None:
    weight, moments = problem(4, 16)
    kept = np.random.default_rng(0).random((4, 16)) > 0.3
    new = PruneLayers(Grid(), {}, masks={"l": kept})(layer(4, 16), weight, moments)
    assert np.array_equal(new[0] != 0, kept)
    x = np.linalg.cholesky(damped(moments)[0]).T  # rows whose second moments these are
    assert np.allclose(new[0], exact(weight[0], kept, x), atol=1e-4)


def test_groups_of_a_convolution_share_what_goes() -> None:
    weight = np.random.default_rng(0).standard_normal((2, 8, 16))
    weight[1] *= 0.1
    moments = np.concatenate([problem(1, 16, seed)[1] for seed in (0, 0)])
    kept, start = choose_by_admm(weight, moments, lambda scores: choose(scores, Grid(), 128))
    assert kept.shape == start.shape == weight.shape and (~kept).sum() == 128
    assert kept[0].sum() > kept[1].sum()
    by_obs, _ = choose_by_obs(weight, moments, Grid(), 0.5)
    assert (~by_obs[0]).sum() == (~by_obs[1]).sum() == 64


def test_a_layer_whose_inputs_are_all_zero_can_be_pruned() -> None:
    weight = np.random.default_rng(0).standard_normal((1, 8, 16))
    for solver in ("admm", "obs"):
        new = PruneLayers(GRIDS["2:4"], {}, solver)(layer(8, 16), weight, np.zeros((1, 16, 16)))
        assert follows(new[0] != 0, GRIDS["2:4"]) and np.isfinite(new).all()
