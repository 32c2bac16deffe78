"""A graph as a list of steps, and the part of it that computes some of its values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from onnxcompress.errors import CompressError, ModelError, first_line
from onnxcompress.torch.standard import Function

ABSENT = 0
"""The slot of inputs that are left out: always None."""

UNWANTED = 1
"""The slot of outputs without a name."""


class Step(NamedTuple):
    """function(*values of inputs) fills the outputs; `label` says in an error which node it was."""

    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    label: str


class _Planned(NamedTuple):
    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class Program:
    """The steps that some values need, in order. A value is let go of after the last step that reads it."""

    steps: list[_Planned]
    slots: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @classmethod
    def select(cls, steps: Sequence[Step], slots: int, inputs: Sequence[int], outputs: Sequence[int]) -> Program:
        """The part of `steps` that computes `outputs` from `inputs`."""
        needed, chosen = set(outputs), list[Step]()
        for step in reversed(steps):
            if needed.intersection(step.outputs):
                chosen.append(step)
                needed.update(step.inputs)
        kept: Collection[int] = {ABSENT, *outputs}
        planned, read = list[_Planned](), set(kept)
        for step in chosen:  # from the last to the first: what is read for the first time is read for the last
            dead = {slot for slot in (*step.inputs, *step.outputs) if slot not in read}
            read |= dead
            planned.append(_Planned(step.function, step.inputs, step.outputs, tuple(dead), step.label))
        return cls(planned[::-1], slots, tuple(inputs), tuple(outputs))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[Any]:
        """The values of the outputs, in order.

        Raises:
            ModelError: a node fails; names it. Out of memory stays torch's own error.
        """
        values: list[Any] = [None] * self.slots
        for slot, value in zip(self.inputs, inputs, strict=True):
            values[slot] = value
        step: _Planned | None = None
        try:
            for step in self.steps:
                function, sources, targets, dead, _ = step
                result = function(*[values[i] for i in sources])
                if type(result) is tuple:
                    for slot, value in zip(targets, result, strict=False):
                        values[slot] = value
                else:
                    values[targets[0]] = result
                for slot in dead:
                    values[slot] = None
        except (CompressError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            name = step.label if step is not None else "the graph"
            raise ModelError(f"{name}: torch cannot compute it: {first_line(error)}") from error
        return [values[slot] for slot in self.outputs]
