"""QuantizeNHWC and DequantizeNCHW refuse what is no image, and undo each other."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Array, Case
from tests.ops.refusals import changed, refuses

_scale, _zero = np.asarray(np.float32(0.25)), np.asarray(np.uint8(9))
CASE = Case("QuantizeNHWC", "base", [np.zeros((1, 3, 4, 5), np.float32), _scale, _zero])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({0: np.zeros((3, 4, 5), np.float32)}, r"x must be \[N, C, H, W\]"),
        ({1: np.ones(3, np.float32)}, "y_scale must be one float"),
        ({2: np.ones(3, np.uint8)}, "y_zero_point must be one uint8"),
    ],
)
def test_a_bad_model_is_refused(inputs: dict[int, Array], message: str) -> None:
    refuses(changed(CASE, inputs), message)


@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
@pytest.mark.parametrize("channels", [*range(1, 20), 31, 48, 65])
def test_there_and_back(instruction_set: str, channels: int) -> None:
    q = np.random.default_rng(channels).integers(0, 256, (2, 3, 97, channels)).astype(np.uint8)
    out = Case("DequantizeNCHW", "back", [q, _scale, _zero])
    x = forms.kernel(out, instruction_set)["y"]
    np.testing.assert_array_equal(x, (q.transpose(0, 3, 1, 2).astype(np.float32) - 9) / 4)
    np.testing.assert_array_equal(forms.kernel(changed(CASE, {0: x}), instruction_set)["y"], q)
