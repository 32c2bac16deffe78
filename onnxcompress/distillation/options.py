"""What can be chosen about a distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LOSSES = ("kl", "mse", "cosine", "similarity", "hidden")
"""Kinds of loss; `losses.py` says what each one measures."""

DEFAULT_BUDGET = 600.0
"""Seconds, where neither steps nor a budget are given."""


@dataclass(frozen=True)
class Options:
    """How a student is trained.

    Attributes:
        losses: weight by kind of loss; empty: chosen from the graph.
        steps: steps of the optimizer; None: as many as the budget allows.
        budget: seconds of wall-clock time in all, resumed runs and the last evaluation included.
        learning_rate: the highest, after warm-up; None: chosen from the graph.
        batch: rows (along axis 0) of a step and process.
        temperature: of the softmax in `kl`.
        warmup: share of the run in which the learning rate rises.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the moving average of weights, which is what is scored and kept; 0: the weights themselves.
        evaluations: how often the student is scored, the start left out.
        checkpoint_seconds: time between checkpoints; one follows each evaluation in any case.
        seed: of the order of the data.
        learn_scales: train scales of QuantizeLinear and DequantizeLinear too.
        reconstruct: steps for each part of a reconstruction before the training; 0: none.
        device: cpu, cuda, or auto: cuda where there is one.
    """

    losses: dict[str, float] = field(default_factory=dict)
    steps: int | None = None
    budget: float | None = None
    learning_rate: float | None = None
    batch: int = 32
    temperature: float = 3.0
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.98
    evaluations: int = 10
    checkpoint_seconds: float = 60.0
    seed: int = 0
    learn_scales: bool = False
    reconstruct: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        unknown = [name for name in self.losses if name not in LOSSES]
        if unknown:
            raise ValueError(f"no loss is named {unknown[0]!r}; there are {', '.join(LOSSES)}")
        if self.steps is not None and self.budget is not None:
            raise ValueError("give steps or a budget, not both")
        wrong = [name for name, fits in self._ranges().items() if not fits]
        if wrong:
            raise ValueError(f"{wrong[0].replace('_', ' ')} {getattr(self, wrong[0])!r} is out of range")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device {self.device!r} is not auto, cpu or cuda")

    def _ranges(self) -> dict[str, bool]:
        return {
            "losses": all(0 < weight < math.inf for weight in self.losses.values()),
            "steps": self.steps is None or self.steps >= 0,
            "budget": self.budget is None or 0 < self.budget < math.inf,
            "learning_rate": self.learning_rate is None or 0 < self.learning_rate < math.inf,
            "batch": self.batch >= 1,
            "reconstruct": self.reconstruct >= 0,
            "temperature": 0 < self.temperature < math.inf,
            "warmup": 0 <= self.warmup < 1,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "clip": self.clip > 0,
            "ema": 0 <= self.ema < 1,
            "evaluations": self.evaluations >= 1,
            "checkpoint_seconds": self.checkpoint_seconds >= 0,
        }

    @property
    def seconds(self) -> float:
        """The budget; infinite where steps are counted."""
        if self.steps is not None:
            return math.inf
        return DEFAULT_BUDGET if self.budget is None else self.budget


def parse_losses(text: str) -> dict[str, float]:
    """Read `kl,hidden=0.5` as weights by kind; 1 where none is given.

    Raises:
        ValueError: no such loss, twice the same, or a weight that is no positive number.
    """
    losses: dict[str, float] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, separator, number = item.partition("=")
        try:
            weight = float(number) if separator else 1.0
        except ValueError:
            weight = math.nan
        if name not in LOSSES:
            raise ValueError(f"no loss is named {name!r}; there are {', '.join(LOSSES)}")
        if name in losses:
            raise ValueError(f"the loss {name} is given twice")
        if not 0 < weight < math.inf:
            raise ValueError(f"{item!r}: the weight of a loss is a positive number")
        losses[name] = weight
    return losses
