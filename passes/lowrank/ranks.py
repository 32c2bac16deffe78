"""Which rank each layer gets: from what ranks lose and how long they take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from onnxcompress.passes.prune.layers import Layer

MULTIPLE = 16
"""Ranks are rounded up to it: kernels work on 16 channels at a time."""


class Option(NamedTuple):
    """A layer at a rank; None: as it is.

    Attributes:
        rank: of its factors.
        ms: how long it takes.
        lost: share of the energy of its output that is lost, 0 to 1.
    """

    rank: int | None
    ms: float
    lost: float


def break_even(layer: Layer) -> int:
    """The first rank at which two factors multiply as often as the layer itself: r (N + K) >= N K."""
    return math.ceil(layer.inputs * layer.outputs / (layer.inputs + layer.outputs))


def rounded_up(rank: int) -> int:
    """The next multiple of 16."""
    return -(-rank // MULTIPLE) * MULTIPLE


def evenly_spaced(layer: Layer, count: int) -> list[int]:
    """Up to `count` multiples of 16 below the break-even rank, rising, about evenly spaced."""
    most = (break_even(layer) - 1) // MULTIPLE
    return sorted({MULTIPLE * max(1, round(most * i / count)) for i in range(1, count + 1)} if most > 0 else ())


def choose_ranks(options: Mapping[str, Sequence[Option]], share: float) -> dict[str, Option]:
    """Options that bring the sum of times down to a share of what it was, at a small sum of losses.

    Greedy: again and again the step that loses least for each millisecond it saves, over all layers. On the convex
    hull of every layer's options these steps come in the order of their price, so only the last one is a guess.

    Args:
        options: by layer; the first is the layer as it is.
        share: of the sum of their times.

    Returns:
        by layer; where no option saves time any more, the sum of times stays above the share.
    """
    chosen = {name: found[0] for name, found in options.items()}
    total = sum(option.ms for option in chosen.values())
    wanted = share * total
    while total > wanted:
        steps = [
            ((option.lost - chosen[name].lost) / (chosen[name].ms - option.ms), name, option)
            for name, found in options.items()
            for option in found
            if option.ms < chosen[name].ms
        ]
        if not steps:
            break
        _, name, option = min(steps, key=lambda step: step[0])
        total -= chosen[name].ms - option.ms
        chosen[name] = option
    return chosen
