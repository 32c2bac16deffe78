"""The learning rate over a run, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

LAST = 0.01
"""Of the highest learning rate, at the end of a run."""


def rate_at(done: float, warmup: float) -> float:
    """The learning rate as a share of the highest: linear warm-up, then half a cosine.

    Args:
        done: share of the run that will be over after this step, above 0 up to 1.
        warmup: share of the run in which it rises.
    """
    if done < warmup:
        return done / warmup
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


class MovingAverage:
    """Exponential moving average of tensors by name; the decay grows from nothing, as too few steps are averaged."""

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.average = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take in the tensors after step number `step` (from 1)."""
        weight = 1 - min(self.decay, step / (step + 10))
        for name, average in self.average.items():
            average.lerp_(tensors[name].detach(), weight)
