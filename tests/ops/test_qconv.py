"""QConv refuses models that it cannot run, and reads nothing outside its tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qconv import CASES
from tests.ops.refusals import altered, changed, refuses_computed
from tests.ops.test_forms import compare

_NAMED = {case.name: case for case in CASES}
_PLAIN, _RESIDUAL = _NAMED["3x3"], _NAMED["a residual after the table"]
_X, _X_SCALE, _X_ZERO, _W, _W_SCALE, _BIAS, _Y_SCALE, _Y_ZERO, _TABLE, _R, _R_SCALE, _R_ZERO, _INNER = range(13)
_FINAL = 14


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (altered(_PLAIN, _W, lambda w: w[0]), "w must be"),
        (altered(_PLAIN, _W, lambda w: w[:0]), "w must be"),
        (altered(_PLAIN, _W, lambda w: np.zeros((64, 1, 1, 65540), np.int8)), "65536 values"),
        (altered(_PLAIN, _X, lambda x: x[0]), "4 dimensions"),
        (altered(_PLAIN, _X, lambda x: x[..., :-1]), "channels of x"),
        (altered(_PLAIN, _X, lambda x: x.astype(np.float32)), "uint8 in NHWC"),
        (altered(_PLAIN, _X_SCALE, lambda s: np.float32(0)), "x_scale must be positive"),
        (altered(_PLAIN, _X_SCALE, lambda s: np.ones(2, np.float32)), "x_scale must be one"),
        (altered(_PLAIN, _W_SCALE, lambda s: s[:-1]), "w_scale must have"),
        (altered(_PLAIN, _BIAS, lambda b: b[:-1]), "bias must have"),
        (altered(_PLAIN, _Y_SCALE, lambda s: np.ones(2, np.float32)), "y_scale must be one"),
        (altered(_RESIDUAL, _TABLE, lambda t: t[:255]), "256 bytes"),
        (altered(_RESIDUAL, _R, lambda r: r[:, :-1]), "residual must be"),
        (altered(_RESIDUAL, _R, lambda r: r[..., :1]), "residual must be"),
        (altered(_RESIDUAL, _R, lambda r: None), "needs a residual"),
        (altered(_RESIDUAL, _FINAL, lambda s: None), "needs inner_scale and final_scale"),
        (altered(_RESIDUAL, _INNER, lambda s: np.float32(0)), "needs inner_scale and final_scale"),
        (replace(_NAMED["floats"], outputs=("y",)), "one without gives y_float"),
        (changed(_PLAIN, strides=(0, 1)), "strides must be"),
        (changed(_PLAIN, strides=(1,)), "2 values"),
        (changed(_PLAIN, dilations=(1, -1)), "dilations must be"),
        (changed(_PLAIN, dilations=(1, 70000)), "dilations must be"),
        (changed(_PLAIN, pads=(0, 0)), "pads must have 4"),
        (changed(_PLAIN, pads=(0, 0, 0, -1)), "pads must be"),
        (changed(_PLAIN, pads=(1 << 40, 0, 0, 0)), "pads must be"),
        (changed(_PLAIN, group=0), "group must divide"),
        (changed(_PLAIN, group=3), "group must divide"),
        (changed(_PLAIN, group=2), "channels of x"),
        (changed(_PLAIN, x_layout="NCWH"), "a layout must be"),
        (changed(_PLAIN, dilations=(9, 1)), "larger than the padded image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_model_is_refused(case: Case, message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(case, "")


def test_a_constant_that_is_computed_is_refused() -> None:
    refuses_computed(_PLAIN, _BIAS, "may be computed at run time")


@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 32, 33, 48, 63, 64, 65, 96, 128, 129])
@pytest.mark.parametrize("pixels", [1, 2, 3, 5, 7, 13, 29])
def test_every_shape_of_tile(outputs: int, pixels: int) -> None:
    """Tails of pixels and of channels, with a table and a residual, on the best instruction set."""
    rng = np.random.default_rng(outputs * 100 + pixels)
    source = _NAMED["a residual after the table"]
    inputs: list[Any] = list(source.inputs)
    inputs[_X] = rng.integers(0, 256, (1, 1, pixels, 32)).astype(np.uint8)
    inputs[_W] = rng.integers(-127, 128, (outputs, 1, 1, 32)).astype(np.int8)
    inputs[_W_SCALE], inputs[_BIAS] = np.float32(0.01), None
    inputs[_R] = rng.integers(0, 256, (1, 1, pixels, outputs)).astype(np.uint8)
    for after in (0, 1):
        case = replace(source, inputs=inputs, attributes={**source.attributes, "residual_after": after}, share=0.02)
        compare(case, forms.reference(case), forms.kernel(case, ""), case.steps, False)


def test_winograd_of_more_tiles_than_are_transformed_at_a_time() -> None:
    """Independent: sums of nine products of matrices, exact in double precision."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (1, 96, 94, 256)).astype(np.uint8)
    w = np.clip(np.rint(rng.normal(0, 30, (128, 3, 3, 256))), -127, 127).astype(np.int8)
    one, zero = np.float32(1), np.uint8(131)
    inputs: list[Any] = [x, one, zero, w, one]
    case = Case("QConv", "many tiles", inputs, {"pads": [1, 1, 1, 1]}, ("y_float",))
    centred = np.pad(x.astype(np.float64) - 131, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [centred[:, i : i + 96, j : j + 94] @ w[:, i, j].T.astype(np.float64) for i in range(3) for j in range(3)]
    np.testing.assert_array_equal(forms.kernel(case, "")["y_float"], np.sum(taps, axis=0).astype(np.float32))
