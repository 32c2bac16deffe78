"""MeanPool: what bad models are told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Array
from tests.ops.cases.meanpool import CASES


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, np.zeros((3, 20), np.float32), "x must be \\[batch, length, channels\\]"),
        (1, np.zeros((3, 19), np.int64), "mask must be \\[batch, length\\]"),
        (1, np.zeros((2, 20), np.int64), "mask must be \\[batch, length\\]"),
        (1, np.zeros((3, 20, 1), np.int64), "mask must be \\[batch, length\\]"),
        (1, np.zeros((3, 20), np.uint8), "int64, int32, float or bool"),
    ],
)
def test_bad_models_get_an_error(index: int, value: Array, message: str) -> None:
    case = CASES[0]
    inputs = list(case.inputs)
    inputs[index] = value
    with pytest.raises(Exception, match=message):
        forms.kernel(dataclasses.replace(case, inputs=inputs), "")
