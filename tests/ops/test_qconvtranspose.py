"""QConvTranspose refuses models that it cannot run, and agrees with torch's transposed convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qconvtranspose import CASES
from tests.ops.refusals import altered, changed, refuses_computed

_NAMED = {case.name: case for case in CASES}
_PLAIN, _TABLED, _FLOATS = _NAMED["2x2"], _NAMED["2x2 with a table"], _NAMED["2x2 to floats"]
_X, _X_SCALE, _X_ZERO, _W, _W_SCALE, _BIAS, _Y_SCALE, _Y_ZERO, _TABLE = range(9)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (altered(_PLAIN, _W, lambda w: w[0]), "w must be"),
        (altered(_PLAIN, _W, lambda w: w[:0]), "w must be"),
        (altered(_PLAIN, _W, lambda w: np.zeros((1, 2, 2, 65536), np.int8)), "too many channels"),
        (altered(_PLAIN, _W, lambda w: np.zeros((1, 5000, 5000, 1), np.int8)), "too many taps"),
        (altered(_PLAIN, _X, lambda x: x[0]), "uint8 in NHWC"),
        (altered(_PLAIN, _X, lambda x: x[..., :-1]), "channels of x"),
        (altered(_PLAIN, _X_SCALE, lambda s: np.float32(0)), "scales must be positive"),
        (altered(_PLAIN, _X_SCALE, lambda s: np.ones(2, np.float32)), "x_scale must be one"),
        (altered(_PLAIN, _W_SCALE, lambda s: s[:-1]), "w_scale must have"),
        (altered(_PLAIN, _BIAS, lambda b: b[:-1]), "bias must have"),
        (altered(_PLAIN, _Y_SCALE, lambda s: np.ones(2, np.float32)), "y_scale must be one"),
        (altered(_PLAIN, _Y_ZERO, lambda z: np.zeros(2, np.uint8)), "y_zero_point must be one"),
        (altered(_TABLED, _TABLE, lambda t: t[:255]), "256 bytes"),
        (altered(_TABLED, _Y_SCALE, lambda s: None), "table needs y_scale"),
        (replace(_FLOATS, outputs=("y",)), "one without gives y_float"),
        (replace(_PLAIN, outputs=("y_float",)), "one without gives y_float"),
        (changed(_PLAIN, strides=(0, 1)), "out of range"),
        (changed(_PLAIN, strides=(1,)), "2 values"),
        (changed(_PLAIN, pads=(0, 0, 0, -1)), "out of range"),
        (changed(_PLAIN, pads=(0, 0)), "2, 4 and 2 values"),
        (changed(_PLAIN, pads=(1 << 40, 0, 0, 0)), "out of range"),
        (changed(_PLAIN, pads=(100, 0, 0, 0)), "pads are larger"),
        (changed(_PLAIN, output_padding=(2, 0)), "less than strides"),
        (changed(_PLAIN, output_padding=(0, -1)), "out of range"),
        (changed(_PLAIN, y_layout="NCWH"), "y_layout must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_model_is_refused(case: Case, message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(case, "")


def test_a_constant_that_is_computed_is_refused() -> None:
    refuses_computed(_PLAIN, _BIAS, "only x may be computed")


@pytest.mark.parametrize("name", ["windows that overlap, padded", "output padding", "2x2 to float planes"])
def test_the_reference_is_a_transposed_convolution(name: str) -> None:
    case = _NAMED[name]
    x, x_scale, zero, w, w_scale, bias = (torch.from_numpy(np.array(value)).double() for value in case.inputs[:6])
    real = torch.nn.functional.conv_transpose2d(
        (x - zero).permute(0, 3, 1, 2) * x_scale,
        w.permute(3, 0, 1, 2) * w_scale.reshape(1, -1, 1, 1),
        bias,
        stride=case.attributes["strides"],
        padding=case.attributes["pads"][0],
        output_padding=case.attributes["output_padding"],
    )
    expected = real if case.attributes["y_layout"] == "NCHW" else real.permute(0, 2, 3, 1)
    actual = forms.reference(replace(case, outputs=("y_float",)))["y_float"]
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_gradients_pass_through_the_rounding() -> None:
    from onnxcompress.torch.ops import TORCH_OPS

    attributes = {**_PLAIN.attributes}
    inputs = [torch.from_numpy(np.array(value)) for value in _PLAIN.inputs if value is not None]
    x = inputs[_X].float().requires_grad_()
    y, _ = TORCH_OPS["QConvTranspose"](attributes, x, *inputs[1:])
    y.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
