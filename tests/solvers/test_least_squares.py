"""The refit against exact least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.solvers.least_squares import damped, output_error, refit

Array = np.ndarray[Any, Any]


def correlated(rows: int, columns: int, seed: int = 0) -> Array:
    """Rows of float64 whose columns hang together."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)) @ rng.standard_normal((columns, columns))


def second_moments(x: Array) -> Array:
    return (x.T @ x / len(x))[None]


def exact(weight: Array, kept: Array, x: Array) -> Array:
    """Each row by numpy's least squares on the columns that it keeps."""
    result = np.zeros_like(weight)
    for row, (w, mask) in enumerate(zip(weight, kept, strict=True)):
        result[row, mask] = np.linalg.lstsq(x[:, mask], x @ w, rcond=None)[0]
    return result


def test_enough_steps_give_the_exact_least_squares() -> None:
    rng = np.random.default_rng(1)
    x, weight = correlated(200, 12), rng.standard_normal((9, 12))
    kept = rng.random((9, 12)) > 0.5
    found = refit(weight[None], weight[None], kept[None], second_moments(x), steps=40)[0]
    wanted = exact(weight, kept, x)
    assert not found[~kept].any()
    assert np.linalg.norm(found - wanted) < 1e-6 * np.linalg.norm(wanted)


def test_a_few_steps_come_close_on_a_wide_layer() -> None:
    rng = np.random.default_rng(2)
    x, weight = correlated(400, 96), rng.standard_normal((16, 96))
    kept = rng.random((16, 96)) > 0.5
    moments = damped(second_moments(x))
    errors = [
        output_error(refit(weight[None], weight[None], kept[None], moments, steps), weight[None], moments)
        for steps in (0, 5, 20, 200)
    ]
    assert errors == sorted(errors, reverse=True)
    # With damping the problem is that of x with rows of its own for each input.
    mean = np.diagonal(second_moments(x)[0]).mean()
    rows = np.concatenate([x / np.sqrt(len(x)), np.sqrt(0.01 * mean) * np.eye(96)])
    best = output_error(exact(weight, kept, rows)[None], weight[None], moments)
    assert errors[3] == pytest.approx(best, rel=1e-6)
    assert errors[2] < 1.15 * best and errors[0] > 2 * best


def test_groups_are_apart() -> None:
    x = [correlated(50, 6, seed) for seed in (3, 4)]
    weight = np.random.default_rng(5).standard_normal((2, 4, 6))
    kept = np.random.default_rng(6).random((2, 4, 6)) > 0.4
    both = refit(weight, weight, kept, np.concatenate([second_moments(part) for part in x]), 30)
    for index in range(2):
        alone = exact(weight[index], kept[index], x[index])
        assert np.allclose(both[index], alone, atol=1e-6)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    x = correlated(50, 6)
    x[:, 2] = 0
    weight = np.random.default_rng(0).standard_normal((1, 3, 6))
    found = refit(weight, weight, np.ones((1, 3, 6), bool), damped(second_moments(x)))
    assert np.allclose(found, weight)
    nothing = damped(np.zeros((1, 4, 4)))
    assert np.array_equal(nothing[0], np.eye(4))
    assert output_error(weight, weight, np.zeros((1, 6, 6))) == 0


def test_the_error_is_that_of_the_outputs() -> None:
    x, weight = correlated(40, 5), np.random.default_rng(0).standard_normal((1, 3, 5))
    other = weight + 0.1
    wanted = np.square(x @ (other - weight)[0].T).sum() / np.square(x @ weight[0].T).sum()
    assert output_error(other, weight, second_moments(x)) == pytest.approx(wanted)
