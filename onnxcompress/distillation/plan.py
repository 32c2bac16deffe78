"""What is compared with what: the terms of a distillation's loss, chosen from the two graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.distillation.matching import block_ends, match
from onnxcompress.distillation.outputs import Form, Output, describe_outputs
from onnxcompress.errors import ModelError

Array = np.ndarray[Any, Any]

DEFAULTS = {
    "classes": {"kl": 1.0, "hidden": 1.0},
    "binary": {"kl": 1.0, "hidden": 1.0},
    "embedding": {"cosine": 2.0, "hidden": 1.0, "similarity": 5.0},
    "dense": {"mse": 1.0, "hidden": 1.0},
}
"""Losses and their weights by the kind of output."""

FITS = {"kl": ("classes", "binary"), "cosine": ("embedding",), "similarity": ("embedding",), "mse": ("dense",)}


@dataclass(frozen=True)
class Term:
    """One loss of one pair of values.

    Attributes:
        loss: its kind.
        student, teacher: the values.
        weight: factor in the sum.
        axis: kl: of the classes; None: each element is a probability of its own.
        student_form, teacher_form: kl: logits or probabilities.
    """

    loss: str
    student: str
    teacher: str
    weight: float = 1.0
    axis: int | None = -1
    student_form: Form = "logits"
    teacher_form: Form = "logits"

    def __str__(self) -> str:
        pair = self.student if self.student == self.teacher else f"{self.student} ~ {self.teacher}"
        return f"{self.loss:<10} x {self.weight:<5.3g} {pair}"


@dataclass(frozen=True)
class Plan:
    """The terms of the loss, what the user should know about how they were chosen, and the kinds of the outputs."""

    terms: tuple[Term, ...] = ()
    notes: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()


def wanted_values(model: ir.Model) -> list[str]:
    """The names of the values that `make_plan` looks at: float outputs and block ends."""
    return list(dict.fromkeys([*(value.name or "" for value in model.graph.outputs), *block_ends(model)]))


def make_plan(
    student: ir.Model,
    teacher: ir.Model,
    losses: Mapping[str, float],
    student_values: Mapping[str, Array],
    teacher_values: Mapping[str, Array],
) -> Plan:
    """Choose the terms.

    1. Outputs of both models, by name. What an output is, the teacher's graph and values say.
    2. `kl` is of outputs that are class scores or probabilities, on the logits where the graph has them; `cosine` and
       `similarity` of embeddings; `mse` (over the power of the teacher's) of others. A loss that was asked for and
       fits no output is taken of all.
    3. `hidden` (`mse` too) is the mean over pairs of inner values.
    4. `losses` empty: those that fit the outputs.

    Args:
        losses: weight by kind.
        student_values, teacher_values: of `wanted_values`, on the same feed.

    Raises:
        ModelError: nothing can be compared: outputs of different shapes.
    """
    outputs = {output.name: output for output in describe_outputs(student, student_values)}
    wanted = [output for output in describe_outputs(teacher, teacher_values) if output.name in outputs]
    notes: list[str] = []
    fitting = []
    for output in wanted:
        shapes = student_values[output.name].shape, teacher_values[output.name].shape
        if shapes[0] == shapes[1]:
            fitting.append(output)
        else:
            notes.append(f"output {output.name} is {shapes[0]} of the student and {shapes[1]} of the teacher: left out")
    kinds = {output.kind for output in fitting}
    chosen = dict(losses) or {k: w for kind in DEFAULTS if kind in kinds for k, w in DEFAULTS[kind].items()}
    terms: list[Term] = []
    for loss, weight in chosen.items():
        if loss != "hidden":
            terms += _of_outputs(loss, weight, fitting, outputs)
    if "hidden" in chosen:
        own, others = ({name: a.shape for name, a in v.items()} for v in (student_values, teacher_values))
        pairs = match(student, teacher, own, others)
        terms += [Term("hidden", one, other, chosen["hidden"] / len(pairs)) for one, other in pairs]
        if not pairs:
            notes.append("no inner values of student and teacher match: the loss is of the outputs alone")
    if not terms:
        raise ModelError(
            "; ".join(notes) or "student and teacher have no values of the same shape that could be compared"
        )
    return Plan(tuple(terms), tuple(notes), frozenset(kinds))


def _of_outputs(loss: str, weight: float, wanted: Sequence[Output], own: Mapping[str, Output]) -> list[Term]:
    fitting = [output for output in wanted if output.kind in FITS[loss]] or list(wanted)
    return [_of_output(loss, weight / len(fitting), output, own[output.name]) for output in fitting]


def _of_output(loss: str, weight: float, wanted: Output, own: Output) -> Term:
    if loss != "kl":
        return Term(loss, own.name, wanted.name, weight)
    axis = None if wanted.kind == "binary" else wanted.axis
    if own.kind != wanted.kind or own.axis != wanted.axis:
        # The student's graph does not tell; its output is read as the teacher's, without the inner logits.
        return Term(loss, own.name, wanted.name, weight, axis, wanted.own_form, wanted.own_form)
    return Term(loss, own.scores, wanted.scores, weight, axis, own.form, wanted.form)
