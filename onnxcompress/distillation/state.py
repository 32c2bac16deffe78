"""Where a run of training is, and parameters that take other tensors for a while."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onnxcompress.distillation.batches import Position
from onnxcompress.distillation.guard import Guard


@dataclass(frozen=True)
class Entry:
    """A line of the history: the state after `step`; losses are means since the line before.

    `score` is None where it does not count, as the masks were not final yet.
    """

    step: int
    seconds: float
    loss: float
    parts: dict[str, float]
    rate: float
    score: float | None


@dataclass
class Run:
    """Where a run is: all that a checkpoint holds, besides the tensors.

    Attributes:
        is_over: it came to its end; what is left of its time is not another step's.
    """

    step: int = 0
    seconds: float = 0.0
    is_over: bool = False
    position: Position = field(default_factory=Position)
    best_step: int = 0
    best_score: float = -math.inf
    start_score: float = -math.inf
    guard: Guard = field(default_factory=Guard)
    history: list[Entry] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint: dicts, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Run:
        """The way back of `as_dict`."""
        fields = dict(document)
        fields["position"] = Position(**fields["position"])
        fields["guard"] = Guard(**fields["guard"])
        fields["history"] = [Entry(**entry) for entry in fields["history"]]
        return cls(**fields)


class Swapped:
    """Parameters hold other tensors within the context, and their own again after it."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
        self.parameters, self.tensors = parameters, tensors

    def __enter__(self) -> None:
        self.own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        load(self.parameters, self.tensors)

    def __exit__(self, *error: object) -> None:
        load(self.parameters, self.own)


def load(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters of the same names."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
