"""The decomposition against numpy's own singular values and against other matrices of the same rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcompress.passes.lowrank import decompose

Array = np.ndarray[Any, Any]


def inputs(count: int, width: int, seed: int = 0) -> Array:
    """Correlated rows with a mean, [count, width]."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) * rng.uniform(0.1, 3, width) + 0.5


def error(weight: Array, other: Array, x: Array) -> float:
    """E |W x - W' x|^2, measured on the rows themselves."""
    return float(np.mean(np.sum((x @ (weight - other).T) ** 2, axis=1)))


@settings(max_examples=25, deadline=None)
@given(outputs=st.integers(1, 24), width=st.integers(1, 24), seed=st.integers(0, 1000))
def test_error_on_data_is_the_tail_of_the_singular_values(outputs: int, width: int, seed: int) -> None:
    x = inputs(200, width, seed)
    weight = np.random.default_rng(seed + 1).normal(size=(outputs, width))
    # Independent: the singular values of the outputs themselves, without any second moment.
    tails = np.cumsum(np.linalg.svd(x @ weight.T, compute_uv=False)[::-1] ** 2)[::-1] / len(x)
    spectrum = decompose(weight, x.T @ x / len(x), damping=0)
    for rank in range(1, min(outputs, width) + 1):
        factors = spectrum.factors(rank)
        found = error(weight, factors.second.astype(np.float64) @ factors.first, x)
        expected = tails[rank] if rank < len(tails) else 0.0
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6 * tails[0])
        assert spectrum.lost(rank) * spectrum.energy == pytest.approx(expected, rel=1e-3, abs=1e-6 * tails[0])


def test_no_other_approximation_of_the_rank_is_better() -> None:
    x = inputs(500, 16)
    weight = np.random.default_rng(3).normal(size=(12, 16))
    found = decompose(weight, x.T @ x / len(x), damping=0).factors(4)
    best = error(weight, found.second @ found.first, x)
    plain = decompose(weight).factors(4)
    assert best < 0.8 * error(weight, plain.second @ plain.first, x)  # the plain one does not know the data
    rng = np.random.default_rng(4)
    for _ in range(20):
        second = found.second + 0.01 * rng.normal(size=found.second.shape)
        first = found.first + 0.01 * rng.normal(size=found.first.shape)
        assert error(weight, second @ first, x) > best


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_full_rank_is_exact_even_where_the_data_shows_few_directions(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(0).normal(size=shape)
    x = inputs(3, shape[1])
    spectrum = decompose(weight, x.T @ x / len(x))
    factors = spectrum.factors(min(shape))
    assert np.linalg.norm(factors.second @ factors.first - weight) <= 1e-5 * np.linalg.norm(weight)
    assert np.isfinite(factors.first).all()


def test_channels_in_between_have_unit_energy() -> None:
    x = inputs(400, 10)
    weight = np.random.default_rng(1).normal(size=(14, 10))
    first = decompose(weight, x.T @ x / len(x), damping=0).factors(6).first
    np.testing.assert_allclose(np.mean((x @ first.T) ** 2, axis=0), 1, rtol=1e-3)


def test_energy_is_the_variance_of_the_output_not_its_mean() -> None:
    x = inputs(1000, 12) + 50
    weight = np.random.default_rng(2).normal(size=(9, 12))
    spectrum = decompose(weight, x.T @ x / len(x), x.mean(axis=0), damping=0)
    assert spectrum.energy == pytest.approx(float(np.var(x @ weight.T, axis=0).sum()), rel=1e-6)
    rank = spectrum.rank_for(0.9)
    factors = spectrum.factors(rank)
    assert error(weight, factors.second @ factors.first, x) <= 0.1 * spectrum.energy
    fewer = spectrum.factors(rank - 1)
    assert error(weight, fewer.second @ fewer.first, x) > 0.1 * spectrum.energy
    assert decompose(weight, x.T @ x / len(x), damping=0).rank_for(0.9) < rank  # the mean made any error look small


def test_all_energy_asks_for_the_rank_of_the_weight() -> None:
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(10, 3)) @ rng.normal(size=(3, 8))
    assert decompose(weight).rank_for(1.0) == 3
    assert decompose(np.zeros((4, 5))).rank_for(0.9) == 1
    zero = decompose(np.zeros((4, 5))).factors(1)
    assert not (zero.second @ zero.first).any()


@pytest.mark.parametrize(
    ("weight", "second", "message"),
    [
        (np.zeros(3), None, "finite matrix"),
        (np.full((2, 2), np.nan), None, "finite matrix"),
        (np.zeros((0, 3)), None, "finite matrix"),
        (np.ones((2, 3)), np.eye(2), r"finite, \[3, 3\]"),
        (np.ones((2, 3)), np.full((3, 3), np.inf), r"finite, \[3, 3\]"),
    ],
)
def test_what_cannot_be_decomposed_raises(weight: Array, second: Array | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decompose(weight, second)


@pytest.mark.parametrize("rank", [0, 4])
def test_rank_out_of_range_raises(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} of a matrix of rank 3"):
        decompose(np.ones((3, 5))).factors(rank)
