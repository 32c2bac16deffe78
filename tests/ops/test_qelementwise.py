"""QElementwise refuses what does not fit, and its kernels stay within their tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Array, Case
from tests.ops.cases.qelementwise import CASES
from tests.ops.refusals import changed, refuses

CASE = next(case for case in CASES if case.name.startswith("bytes per channel, add, 6"))  # a: [2, 3, 5, 6]
A, B, TABLE = 0, 3, 8


def _bytes(*shape: int) -> Array:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ({}, {"operation": "divide"}, "operation must be add, sub or mul"),
        ({}, {"upsample": 0}, "upsample must be at least 1"),
        ({}, {"upsample": 2}, "smaller than a by the factor upsample"),
        ({A: _bytes(2, 4, 4, 6), B: _bytes(2, 2, 1, 6)}, {"upsample": 2}, "smaller than a by the factor upsample"),
        ({A: _bytes(2, 4, 4, 6), B: np.zeros((2, 2, 2, 6), np.float32)}, {"upsample": 2}, "must be uint8"),
        ({B: _bytes(2, 1, 1, 5)}, {}, "b must have the shape of a"),
        ({B: _bytes(3, 1, 1, 6)}, {}, "b must have the shape of a"),
        ({B: _bytes(2, 3, 1, 6)}, {}, "b must have the shape of a"),
        ({B: _bytes(6)}, {}, "b must have the shape of a"),
        ({B: _bytes(0, 1, 1, 6)}, {}, "b must have the shape of a"),
        ({A: _bytes(0, 3, 5, 6), B: _bytes(0, 1, 1, 7)}, {}, "b does not fit a"),
        ({B: np.zeros((2, 1, 1, 6), np.int8)}, {}, "b must be uint8 or float"),
        ({TABLE: _bytes(255)}, {}, "table must be 256 bytes"),
        ({2: _bytes(2)}, {}, "a_zero_point must be one uint8"),
        ({6: np.ones(3, np.float32)}, {}, "y_scale must be one float"),
    ],
)
def test_a_bad_model_is_refused(inputs: dict[int, Array], attributes: dict[str, Any], message: str) -> None:
    refuses(changed(CASE, inputs, **attributes), message)


@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
@pytest.mark.parametrize("count", [1, 15, 16, 31, 32, 33, 63, 64, 65, 127, 129, 200])
def test_every_length_of_tail(instruction_set: str, count: int) -> None:
    rng = np.random.default_rng(count)
    a, b = (rng.integers(0, 256, (1, count)).astype(np.uint8) for _ in range(2))
    case = Case("QElementwise", "tail", [a, *CASE.inputs[1:3], b, *CASE.inputs[4:]])
    difference = forms.kernel(case, instruction_set)["y"].astype(int) - forms.reference(case)["y"]
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() <= 0.02
