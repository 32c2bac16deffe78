"""QLinear: errors of bad models, and the accuracy of its activations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops import OPS
from onnxcompress.ops.activation import ACTIVATIONS, activation_body, activation_reference
from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qlinear import STATIC, activations, scalar, weights

F32 = np.float32
NAMES = [port.name for port in OPS["QLinear"].inputs]


def _case(outputs: tuple[str, ...] = ("y",), attributes: dict[str, Any] | None = None, **changes: Any) -> Case:
    """A good case, but for the inputs that are named."""
    inputs = [*activations(3, 8), *weights(20, 8), None, scalar(0.03), scalar(100, np.uint8), None]
    for name, value in changes.items():
        inputs[NAMES.index(name)] = value
    return Case("QLinear", "bad", inputs, attributes or {}, outputs, constants=STATIC)


BAD = [
    ("w must be", {"w": np.zeros((20, 8, 1), np.int8)}),
    ("w must be", {"w": np.zeros((20, 0), np.int8)}),
    ("w is too large", {"w": np.zeros((1, 65537), np.int8)}),
    ("last dimension of x", {"w": np.zeros((20, 12), np.int8)}),
    ("w_scale", {"w_scale": np.ones(19, F32)}),
    ("bias", {"bias": np.ones(19, F32)}),
    ("x_scale", {"x_scale": scalar(0.0)}),
    ("x_scale", {"x_scale": scalar(np.nan)}),
    ("y_scale", {"y_scale": np.ones(19, F32)}),
    ("y_scale", {"y_scale": np.full(20, -1, F32)}),
    ("y_scale", {"y_scale": scalar(np.inf)}),
    ("y_zero_point", {"y_zero_point": np.zeros(20, np.uint8)}),
    ("table", {"table": np.zeros(255, np.uint8)}),
    ("residual", {"residual": np.zeros((3, 19), F32)}),
    ("residual", {"residual": np.zeros((1, 20), F32)}),
    ("the output is y", {"y_scale": None, "y_zero_point": None}),
    ("the output is y", {"outputs": ("y_float",)}),
    ("with dynamic = 1", {"attributes": {"dynamic": 1}}),
    ("no activation", {"attributes": {"activation": "softsign"}}),
]


@pytest.mark.parametrize(("message", "changes"), BAD, ids=str)
def test_a_bad_model_gets_an_error(message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(_case(**changes), "")


def test_parameters_of_rows_must_be_those_of_x() -> None:
    x, scale, zero = activations(3, 8, dynamic=True)
    assert scale is not None and zero is not None
    good = dataclasses.replace(_case(x=x, x_scale=scale, x_zero_point=zero), constants=())
    forms.kernel(good, "")
    for changes in ({"x_scale": scale[:2]}, {"x_zero_point": zero[:2]}, {"x": np.zeros((3, 8), F32)}):
        inputs: dict[str, Any] = {"x": x, "x_scale": scale, "x_zero_point": zero, **changes}
        with pytest.raises(Exception, match="x_scale and x_zero_point"):
            forms.kernel(dataclasses.replace(_case(**inputs), constants=()), "")


@pytest.mark.parametrize("isa", forms.instruction_sets())
@pytest.mark.parametrize("step", [0.2, 0.02, 0.01, 3e-3, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name])
def test_activations_are_right_to_a_step(isa: str, step: float, activation: str) -> None:
    """Over 65536 arguments within [-12, 12] and beyond, steps coarse and fine; the zero point in the middle of them."""
    x = np.arange(256, dtype=np.uint8)[:, None]
    w = np.array([[1]], np.int8).repeat(256, 0)
    bias = (np.arange(256) / 255 * 0.1 + (-12.8 if step > 0.01 else -step * 128)).astype(F32)
    scale = scalar(0.1 if step > 0.01 else step * 2)
    case = Case(
        "QLinear",
        "sweep",
        [x, scale, scalar(0, np.uint8), w, scalar(1.0), bias, None, scalar(step), scalar(64, np.uint8)],
        {"activation": activation},
        constants=STATIC,
    )
    difference = forms.kernel(case, isa)["y"].astype(int) - forms.reference(case)["y"].astype(int)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.06


@pytest.mark.parametrize("isa", forms.instruction_sets())
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name])
def test_activations_to_floats_are_right_to_a_millionth(isa: str, activation: str) -> None:
    x = np.arange(256, dtype=np.uint8)[:, None]
    case = Case(
        "QLinear", "sweep", [x, scalar(0.1), scalar(128, np.uint8), np.array([[1]], np.int8), scalar(1.0)],
        {"activation": activation}, ("y_float",), constants=STATIC,
    )  # fmt: skip
    actual, expected = forms.kernel(case, isa)["y_float"], forms.reference(case)["y_float"]
    assert np.abs(actual - expected).max() <= 2e-6
    np.testing.assert_allclose(actual[x >= 128], expected[x >= 128], rtol=2e-6, atol=1e-7)


def test_no_byte_beyond_x_matters() -> None:
    """K of 4 n + r: what follows a row is the next one, and zeros after the last, never what lies behind the tensor."""
    rng = np.random.default_rng(4)
    for k in (1, 2, 3, 5, 63):
        x, x_scale, zero = activations(5, k)
        assert x is not None
        case = _case(x=x, x_scale=x_scale, x_zero_point=zero, w=rng.integers(-127, 128, (20, k)).astype(np.int8))
        np.testing.assert_array_equal(forms.kernel(case, "")["y"], forms.kernel(case, "scalar")["y"])


def test_the_names_of_activations_are_checked() -> None:
    with pytest.raises(ValueError, match="no activation"):
        activation_reference("softsign", np.zeros(1))
    with pytest.raises(ValueError, match="no activation"):
        activation_body("softsign", "x", "y")
