"""The losses against numpy, written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from onnxcompress.distillation import losses

Array = np.ndarray[Any, Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def softmax(x: Array, axis: int) -> Array:
    exponentials = np.exp(x - x.max(axis, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis, keepdims=True)
    return result


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_that_of_kullback_and_leibler(axis: int, temperature: float) -> None:
    student, teacher = random(4, 5, 6), random(4, 5, 6, seed=1)
    p, q = (softmax(x / temperature, axis) for x in (teacher, student))
    wanted = temperature**2 * (p * np.log(p / q)).sum(axis).mean()
    one, other = (
        losses.log_probabilities(torch.from_numpy(x), "logits", temperature, axis) for x in (student, teacher)
    )
    summed, count = losses.divergence(one, other, temperature, axis)
    assert float(summed / count) == pytest.approx(wanted, rel=1e-9)


def test_probabilities_give_what_their_logits_give() -> None:
    logits = random(3, 7)
    by_logits = losses.log_probabilities(torch.from_numpy(logits), "logits", 2.5, -1)
    by_probabilities = losses.log_probabilities(torch.from_numpy(softmax(logits, -1)), "probabilities", 2.5, -1)
    np.testing.assert_allclose(by_logits, by_probabilities, atol=1e-9)


def test_probabilities_of_zero_stay_finite() -> None:
    found = losses.log_probabilities(torch.tensor([[0.0, 1.0]]), "probabilities", 1.0, -1)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_binary_divergence_is_that_of_two_classes(temperature: float) -> None:
    """A probability p is the softmax over a logit and zero."""
    student, teacher = random(4, 5), random(4, 5, seed=1)
    p, q = (1 / (1 + np.exp(-x / temperature)) for x in (teacher, student))
    wanted = temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    summed, count = losses.binary_divergence(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert float(summed / count) == pytest.approx(wanted, rel=1e-9)
    far = torch.full((2,), 200.0)
    assert torch.isfinite(losses.binary_divergence(far, -far, 1.0)[0])


def test_logits_of_probabilities() -> None:
    x = torch.from_numpy(random(3, 4))
    torch.testing.assert_close(losses.logits_of(torch.sigmoid(x), "probabilities"), x)
    assert losses.logits_of(x, "logits") is x
    assert torch.isfinite(losses.logits_of(torch.tensor([0.0, 1.0]), "probabilities")).all()


def test_squared_error_is_a_share_of_the_teachers_power() -> None:
    student, teacher = random(4, 6), random(4, 6, seed=1)
    summed, power = losses.squared_error(torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(summed / power) == pytest.approx(((student - teacher) ** 2).sum() / (teacher**2).sum(), rel=1e-9)
    summed, power = losses.squared_error(torch.zeros(4, 6, dtype=torch.float64), torch.from_numpy(teacher))
    assert float(summed / power) == pytest.approx(1.0)


def test_padding_is_left_out() -> None:
    student, teacher = random(2, 3, 4), random(2, 3, 4, seed=1)
    kept = np.array([[1, 1, 0], [1, 0, 0]], bool)
    summed, power = losses.squared_error(*(torch.from_numpy(x) for x in (student, teacher, kept)))
    assert float(summed / power) == pytest.approx(
        ((student - teacher)[kept] ** 2).sum() / (teacher[kept] ** 2).sum(), rel=1e-9
    )
    summed, count = losses.cosine_distance(*(torch.from_numpy(x) for x in (student, teacher, kept)))
    a, b = student[kept], teacher[kept]
    cosines = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    assert float(summed / count) == pytest.approx((1 - cosines).mean(), rel=1e-9)


def test_cosine_distance() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    y = torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    summed, count = losses.cosine_distance(x, y)
    assert float(summed / count) == pytest.approx((0 + 2 + 1 - 2**-0.5) / 3, rel=1e-6)


def test_similarity_compares_pairs_of_rows_whatever_their_width() -> None:
    student, teacher = random(5, 3), random(5, 8, seed=1)

    def similarities(x: Array) -> Array:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        product: Array = unit @ unit.T
        return product

    different = ~np.eye(5, dtype=bool)
    wanted = ((similarities(student) - similarities(teacher))[different] ** 2).mean()
    summed, count = losses.similarity_error(torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(summed / count) == pytest.approx(wanted, rel=1e-9)
    summed, count = losses.similarity_error(torch.from_numpy(student[:1]), torch.from_numpy(teacher[:1]))
    assert float(summed / count) == pytest.approx(0, abs=1e-12)
