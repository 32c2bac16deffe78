"""What the options refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest

from onnxcompress.distillation.options import DEFAULT_BUDGET, Options, parse_losses


def test_the_budget() -> None:
    assert Options().seconds == DEFAULT_BUDGET
    assert Options(budget=5.0).seconds == 5.0
    assert Options(steps=3).seconds == math.inf


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 1, "budget": 1.0}, "give steps or a budget, not both"),
        ({"losses": {"l2": 1.0}}, "no loss is named 'l2'; there are kl, mse, cosine, similarity, hidden"),
        ({"losses": {"kl": 0.0}}, "losses {'kl': 0.0} is out of range"),
        ({"steps": -1}, "steps -1 is out of range"),
        ({"budget": 0.0}, "budget 0.0 is out of range"),
        ({"learning_rate": -1.0}, "learning rate -1.0 is out of range"),
        ({"batch": 0}, "batch 0 is out of range"),
        ({"temperature": 0.0}, "temperature 0.0 is out of range"),
        ({"warmup": 1.0}, "warmup 1.0 is out of range"),
        ({"weight_decay": -1.0}, "weight decay -1.0 is out of range"),
        ({"clip": 0.0}, "clip 0.0 is out of range"),
        ({"ema": 1.0}, "ema 1.0 is out of range"),
        ({"evaluations": 0}, "evaluations 0 is out of range"),
        ({"checkpoint_seconds": -1.0}, "checkpoint seconds -1.0 is out of range"),
        ({"device": "tpu"}, "device 'tpu' is not auto, cpu or cuda"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Options(**fields)
    assert str(caught.value) == message


def test_losses_are_read() -> None:
    assert parse_losses("kl, hidden=0.5,cosine,") == {"kl": 1.0, "hidden": 0.5, "cosine": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("l2", "no loss is named 'l2'; there are kl, mse, cosine, similarity, hidden"),
        ("kl,kl=2", "the loss kl is given twice"),
        ("kl=x", "'kl=x': the weight of a loss is a positive number"),
        ("kl=-1", "'kl=-1': the weight of a loss is a positive number"),
    ],
)
def test_losses_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_losses(text)
    assert str(caught.value) == message
