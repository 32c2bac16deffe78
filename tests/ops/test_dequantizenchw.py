"""DequantizeNCHW refuses what is no image of bytes; test_quantizenhwc.py has its way back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Array, Case
from tests.ops.refusals import changed, refuses

CASE = Case(
    "DequantizeNCHW", "base", [np.zeros((1, 3, 4, 5), np.uint8), np.asarray(np.float32(1)), np.asarray(np.uint8(0))]
)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({0: np.zeros((3, 4, 5), np.uint8)}, r"x must be \[N, H, W, C\]"),
        ({1: np.ones(2, np.float32)}, "x_scale must be one float"),
        ({2: np.ones(2, np.uint8)}, "x_zero_point must be one uint8"),
        ({3: np.ones(255, np.float32)}, "values must be 256 floats"),
    ],
)
def test_a_bad_model_is_refused(inputs: dict[int, Array], message: str) -> None:
    refuses(changed(CASE, inputs), message)


@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 40])
def test_every_bit_of_the_values_arrives(instruction_set: str, channels: int) -> None:
    bits = np.random.default_rng(1).integers(0, 1 << 32, 256, dtype=np.uint32)
    values = bits.view(np.float32).copy()
    x = np.random.default_rng(2).integers(0, 256, (1, 5, 77, channels)).astype(np.uint8)
    y = forms.kernel(changed(CASE, {0: x, 3: values}), instruction_set)["y"]
    np.testing.assert_array_equal(y.view(np.uint32), values.view(np.uint32)[x.transpose(0, 3, 1, 2)])
