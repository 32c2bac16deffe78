"""Choosing ranks, against enumeration of every combination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxcompress.passes.lowrank import Option, break_even, choose_ranks, evenly_spaced, rounded_up
from onnxcompress.passes.prune.layers import Layer


def layer(inputs: int, outputs: int) -> Layer:
    return Layer("l", "MatMul", "w", "x", inputs, outputs)


@pytest.mark.parametrize(("inputs", "outputs"), [(384, 1536), (7, 7), (1, 5), (16, 16)])
def test_break_even_is_where_two_factors_multiply_as_often(inputs: int, outputs: int) -> None:
    rank = break_even(layer(inputs, outputs))
    assert rank * (inputs + outputs) >= inputs * outputs > (rank - 1) * (inputs + outputs)


def test_spaced_ranks_are_multiples_below_break_even() -> None:
    assert evenly_spaced(layer(384, 1536), 4) == [80, 160, 224, 304]
    assert evenly_spaced(layer(40, 40), 8) == [16]
    assert evenly_spaced(layer(32, 32), 8) == []  # two factors of rank 16 multiply as often as the layer
    assert [rounded_up(rank) for rank in (1, 16, 17)] == [16, 16, 32]


def test_choice_is_as_good_as_enumeration_up_to_the_last_step() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        options = {}
        for name in "abcd":
            times = np.sort(rng.uniform(0.1, 1, 3))
            # Convex: each further millisecond costs more.
            losses = np.cumsum(np.sort(rng.uniform(0, 1, 3)))[::-1]
            ranks = [
                Option(16 * (i + 1), float(ms), float(lost))
                for i, (ms, lost) in enumerate(zip(times, losses, strict=True))
            ]
            options[name] = [Option(None, 1.2, 0.0), *ranks]
        chosen = choose_ranks(options, 0.6)
        time, lost = (sum(getattr(option, key) for option in chosen.values()) for key in ("ms", "lost"))
        assert time <= 0.6 * 4 * 1.2
        best = min(
            sum(option.lost for option in combination)
            for combination in itertools.product(*options.values())
            if sum(option.ms for option in combination) <= time + 1e-12
        )
        assert lost <= best + max(option.lost for found in options.values() for option in found)


def test_cheapest_step_is_taken_first_and_no_more_than_needed() -> None:
    options = {
        "cheap": [Option(None, 1.0, 0.0), Option(16, 0.5, 0.01)],
        "dear": [Option(None, 1.0, 0.0), Option(16, 0.5, 0.5)],
    }
    chosen = choose_ranks(options, 0.75)
    assert (chosen["cheap"].rank, chosen["dear"].rank) == (16, None)
    assert choose_ranks(options, 1.0)["cheap"].rank is None


def test_what_cannot_be_reached_ends_at_the_fastest() -> None:
    options = {"a": [Option(None, 1.0, 0.0), Option(16, 0.9, 0.1)], "b": [Option(None, 1.0, 0.0)]}
    assert [option.rank for option in choose_ranks(options, 0.1).values()] == [16, None]
