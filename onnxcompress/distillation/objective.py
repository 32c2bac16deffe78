"""The loss of a batch: the terms of a plan, each over all parts of the batch, and the user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxcompress.data import Feed
from onnxcompress.distillation import losses
from onnxcompress.distillation.batches import row_count
from onnxcompress.distillation.plan import Term

Values = Mapping[str, Tensor]
TaskLoss = Callable[[Mapping[str, Tensor], Mapping[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]], Tensor]


@dataclass(frozen=True)
class Part:
    """A feed, and what student and teacher made of it."""

    feed: Feed
    student: Values
    teacher: Values


@dataclass(frozen=True)
class Whole:
    """What the sums over the parts of a batch are divided by: of each term, and its rows for the task loss."""

    counts: tuple[Tensor, ...]
    rows: int


@dataclass(frozen=True)
class Objective:
    """The loss of a batch.

    Attributes:
        terms: from the plan.
        temperature: of `kl`.
        task_loss: `task_loss(outputs, feed)`, the mean over a feed's rows; added to the rest.
        outputs: names that `task_loss` is given.
    """

    terms: Sequence[Term]
    temperature: float
    task_loss: TaskLoss | None = None
    outputs: tuple[str, ...] = ()

    @property
    def student_values(self) -> list[str]:
        """The values of the student that are needed."""
        return list(dict.fromkeys([*(term.student for term in self.terms), *self.outputs]))

    @property
    def teacher_values(self) -> list[str]:
        """The values of the teacher that are needed."""
        return list(dict.fromkeys(term.teacher for term in self.terms))

    @property
    def is_separable(self) -> bool:
        """Is the loss a sum over the parts of a batch, so that each can be done with before the next?"""
        return all(term.loss != "similarity" for term in self.terms)

    def whole(self, feeds: Sequence[Feed], teacher: Sequence[Values]) -> Whole:
        """Of a batch: its feeds, and what the teacher makes of each."""
        counts = []
        for term in self.terms:
            values = [given[term.teacher] for given in teacher]
            if term.loss == "similarity":
                counts.append(losses.similarity_error(*[torch.cat([value.flatten(1) for value in values])] * 2)[1])
            else:  # what is divided by does not depend on the student
                pairs = [self._pair(term, value, value, feed) for value, feed in zip(values, feeds, strict=True)]
                counts.append(torch.stack([count for _, count in pairs]).sum())
        return Whole(tuple(counts), sum(row_count(feed) for feed in feeds))

    def __call__(self, parts: Sequence[Part], whole: Whole) -> tuple[Tensor, dict[str, float]]:
        """What parts of a batch add to its loss, and by kind of loss its value without its weight.

        All parts at once, unless the loss is separable.
        """
        total: Tensor = torch.zeros(())
        told: dict[str, float] = {}
        kinds = Counter(term.loss for term in self.terms)
        for term, count in zip(self.terms, whole.counts, strict=True):
            value = self._sum(term, parts) / count
            total = total + term.weight * value
            told[term.loss] = told.get(term.loss, 0.0) + float(value.detach()) / kinds[term.loss]
        if self.task_loss is not None:
            task = self._task(parts, whole.rows)
            total = total + task
            told["task"] = float(task.detach())
        return total, told

    def _sum(self, term: Term, parts: Sequence[Part]) -> Tensor:
        pairs = [(part.student[term.student], part.teacher[term.teacher]) for part in parts]
        if term.loss == "similarity":
            one, other = (torch.cat([pair[side].flatten(1) for pair in pairs]) for side in (0, 1))
            return losses.similarity_error(one, other)[0]
        found = [self._pair(term, *pair, part.feed)[0] for pair, part in zip(pairs, parts, strict=True)]
        return torch.stack(found).sum()

    def _pair(self, term: Term, student: Tensor, teacher: Tensor, feed: Feed) -> tuple[Tensor, Tensor]:
        if term.loss == "kl":
            return self._divergence(term, student, teacher)
        kept = padding_mask(feed, student)
        if term.loss == "cosine":
            return losses.cosine_distance(student, teacher, kept)
        return losses.squared_error(student, teacher, kept)

    def _divergence(self, term: Term, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if term.axis is None:
            one, other = losses.logits_of(student, term.student_form), losses.logits_of(teacher, term.teacher_form)
            return losses.binary_divergence(one, other, self.temperature)
        one = losses.log_probabilities(student, term.student_form, self.temperature, term.axis)
        other = losses.log_probabilities(teacher, term.teacher_form, self.temperature, term.axis)
        return losses.divergence(one, other, self.temperature, term.axis)

    def _task(self, parts: Sequence[Part], rows: int) -> Tensor:
        assert self.task_loss is not None
        outputs = [{name: part.student[name] for name in self.outputs} for part in parts]
        found = [
            self.task_loss(out, part.feed) * row_count(part.feed) for out, part in zip(outputs, parts, strict=True)
        ]
        return torch.stack(found).sum() / rows


def padding_mask(feed: Feed, value: Tensor) -> Tensor | None:
    """Which positions of a value [rows, positions, ...] are no padding.

    An input of two axes of integers or booleans whose name holds "mask", as tokenizers give it, tells them; it
    concerns values of three axes that begin with its shape.
    """
    for name, array in feed.items():
        is_mask = "mask" in name.lower() and array.ndim == 2 and array.dtype.kind in "iub"
        if is_mask and value.dim() == 3 and tuple(value.shape[:2]) == array.shape:
            return torch.from_numpy(array != 0).to(value.device)
    return None
