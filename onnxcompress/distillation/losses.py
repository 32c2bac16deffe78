"""The losses, each of one pair of values: float tensors of the same shape, the student's first.

Sums are taken over all elements, so that the parts of a batch can be put together exactly: each function gives
a sum and what to divide it by.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12
"""Keeps logarithms and divisions finite."""


def log_probabilities(scores: Tensor, form: str, temperature: float, axis: int) -> Tensor:
    """Logarithms of class probabilities at a temperature.

    Args:
        scores: logits, or probabilities, whose logarithms are logits up to a constant that the softmax drops.
        form: "logits" or "probabilities".
    """
    logits = scores if form == "logits" else scores.clamp_min(TINY).log()
    return torch.log_softmax(logits / temperature, axis)


def divergence(student: Tensor, teacher: Tensor, temperature: float, axis: int) -> tuple[Tensor, Tensor]:
    """Kullback-Leibler divergence of the student's class probabilities from the teacher's, by position.

    Scaled by the square of the temperature, so that gradients keep their size (Hinton, Vinyals and Dean 2015,
    Distilling the Knowledge in a Neural Network).

    Args:
        student, teacher: log probabilities at that temperature.

    Returns:
        the sum over positions, and their number.
    """
    summed = (teacher.exp() * (teacher - student)).sum() * temperature**2
    return summed, torch.tensor(float(student.numel() // student.shape[axis]))


def binary_divergence(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The same of probabilities that stand for themselves: element by element, of logits.

    Args:
        student, teacher: logits, or `logit` of probabilities.

    Returns:
        the sum over elements, and their number.
    """
    one, other = student / temperature, teacher / temperature
    sigmoid, log = torch.sigmoid, torch.nn.functional.logsigmoid
    found = sigmoid(other) * (log(other) - log(one)) + sigmoid(-other) * (log(-other) - log(-one))
    return found.sum() * temperature**2, torch.tensor(float(found.numel()))


def logits_of(scores: Tensor, form: str) -> Tensor:
    """Logits as they are; of probabilities the logit, finite."""
    return scores if form == "logits" else torch.logit(scores, eps=1e-6)


def squared_error(student: Tensor, teacher: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Squared error, and the teacher's power to divide it by: 1 is what zeros would give.

    Args:
        kept: 1 where an element counts, 0 at padding; broadcast over trailing axes.
    """
    difference, power = (student - teacher).square(), teacher.square()
    if kept is not None:
        kept = trailing(kept, student)
        difference, power = difference * kept, power * kept
    return difference.sum(), power.sum().clamp_min(TINY)


def cosine_distance(student: Tensor, teacher: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """1 - cosine along the last axis: the sum over vectors, and their number."""
    distance = 1 - torch.nn.functional.cosine_similarity(student, teacher, dim=-1, eps=TINY)
    if kept is None:
        return distance.sum(), torch.tensor(float(distance.numel()))
    kept = trailing(kept, distance).expand_as(distance)
    return (distance * kept).sum(), kept.sum().clamp_min(1)


def similarity_error(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """How far the rows' cosine similarities with each other are from the teacher's (Tung and Mori 2019,
    Similarity-Preserving Knowledge Distillation).

    Args:
        student, teacher: [rows, width]; widths may differ.

    Returns:
        the sum over pairs of different rows of the squared difference, and the number of pairs.
    """
    rows = len(student)
    one, other = (torch.nn.functional.normalize(rows, dim=-1, eps=TINY) for rows in (student, teacher))
    summed = (one @ one.T - other @ other.T).square().sum()
    return summed, torch.tensor(float(max(rows * (rows - 1), 1)))


def trailing(kept: Tensor, like: Tensor) -> Tensor:
    """A mask of leading axes, in the type of a value and with axes of size one at the end."""
    return kept.to(like.dtype).reshape(kept.shape + (1,) * (like.dim() - kept.dim()))
