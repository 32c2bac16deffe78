"""QLinear4: what its kernel refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qlinear4 import CASES

_BASE = next(case for case in CASES if case.name == "2x96x65")
_W = np.asarray(_BASE.inputs[3])


def _changed(index: int, value: Any) -> Case:
    return replace(_BASE, inputs=[value if i == index else x for i, x in enumerate(_BASE.inputs)])


@pytest.mark.parametrize("block_size", [0, 16, 34, 40, -32, 1 << 40])
def test_the_kernel_refuses_a_block_size(block_size: int) -> None:
    with pytest.raises(Exception, match="block_size must be a multiple of 4 from 32 on that divides K"):
        forms.kernel(replace(_BASE, attributes={"block_size": block_size}), "")


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, np.zeros((2, 95), np.uint8), "last dimension of x"),
        (1, np.float32(0), "x_scale must be positive"),
        (3, _W[:, :32], "w_scale must be"),
        (3, _W[0], "w must be"),
        (3, _W[:0], "w must be"),
        (4, np.ones((65, 2), np.float32), "w_scale must be"),
        (4, np.ones((96, 3), np.float32), "w_scale must be"),
        (5, np.ones(64, np.float32), "bias must have"),
        (6, np.ones((2, 64), np.float32), "residual has not the shape"),
        (7, np.float32(-1), "y_scale must be positive"),
        (7, np.ones(64, np.float32), "y_scale must have"),
    ],
)
def test_the_kernel_refuses(index: int, value: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(_changed(index, value), "")


def test_the_kernel_refuses_an_activation() -> None:
    with pytest.raises(Exception, match="no activation is called 'tanh'"):
        forms.kernel(replace(_BASE, attributes={"block_size": 32, "activation": "tanh"}), "")


def test_the_kernel_refuses_parameters_of_too_few_rows() -> None:
    case = next(case for case in CASES if case.name == "rows")
    with pytest.raises(Exception, match="one value for each row"):
        forms.kernel(replace(case, inputs=[case.inputs[0][:1], *case.inputs[1:]]), "")  # type: ignore[index]
