"""What counts as agreement, and what fresh inputs are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onnxcompress.exporting.examples import make_example
from onnxcompress.exporting.verification import relative_error


def forward(ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return ids + x


@pytest.mark.parametrize(("reference", "value", "error"), [
    ([3.0, 4.0], [3.0, 4.0], 0.0),
    ([3.0, 4.0], [3.0, 4.5], 0.1),
    ([0.0, 0.0], [0.0, 0.5], 0.5),
    ([1.0, math.nan], [1.0, math.nan], 0.0),
    ([1.0, math.nan], [1.0, 2.0], math.inf),
    ([1.0, 2.0], [1.0, math.nan], math.inf),
    ([1.0, math.inf], [1.0, -math.inf], math.inf),
    ([], [], 0.0),
])  # fmt: skip
def test_relative_error(reference: list[float], value: list[float], error: float) -> None:
    assert relative_error(np.array(reference), np.array(value)) == pytest.approx(error)


def test_integers_count_by_share() -> None:
    assert relative_error(np.array([1, 2, 3, 400]), np.array([1, 2, 3, 4])) == 0.25
    assert relative_error(np.array([True, False]), np.array([True, True])) == 0.5


def test_fresh_values_stay_valid_and_differ() -> None:
    example = make_example(
        forward,
        (torch.tensor([[3, 3, 9, 17]]), torch.rand(1, 4) + 5),
        dynamic={"ids": {0: "n"}, "x": {0: "n"}},
    )
    assert example.sizes == {"n": 1}
    ids, x = example.fresh({"n": 50}, torch.Generator().manual_seed(0)).tensors
    assert ids.shape == x.shape == (50, 4)
    assert set(ids.flatten().tolist()) == {3, 9, 17}
    assert example.tensors[1].min() <= x.min() < x.max() <= example.tensors[1].max()
    again = example.fresh({"n": 50}, torch.Generator().manual_seed(0)).tensors[1]
    assert torch.equal(x, again)


def test_fresh_values_of_placeholders() -> None:
    generator = torch.Generator().manual_seed(0)
    zeros = make_example(forward, (torch.ones(0, 4).long(), torch.zeros(2, 4))).fresh({}, generator).tensors
    assert zeros[0].shape == (0, 4)
    assert zeros[1].std() > 0.3
    ones = make_example(forward, (torch.ones(2, 4).bool(), torch.ones(2, 4).half())).fresh({}, generator).tensors
    assert ones[0].all()
    assert ones[1].dtype == torch.float16
    assert 0 <= ones[1].min() < ones[1].max() <= 1
