"""QLayerNorm: errors of bad models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.ops import OPS
from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qlayernorm import norm
from tests.ops.cases.qlinear import scalar

F32 = np.float32
NAMES = [port.name for port in OPS["QLayerNorm"].inputs]

BAD_NORMS: list[tuple[str, dict[str, Any]]] = [
    ("gamma must have", {"gamma": np.zeros(19, F32)}),
    ("beta must have", {"beta": np.zeros(19, F32)}),
    ("q_scale must have", {"q_scale": np.ones(19, F32)}),
    ("q_scale must be positive", {"q_scale": scalar(0.0)}),
    ("q_zero_point", {"q_zero_point": np.zeros(20, np.uint8)}),
    ("residual", {"residual": np.zeros((1, 20), F32)}),
    ("epsilon", {"attributes": {"epsilon": -1.0}}),
    ("q needs q_scale", {"q_scale": None, "q_zero_point": None}),
    ("go with q and dynamic", {"outputs": ("q", "row_scale", "row_zero_point")}),
    ("go with q and dynamic", {"attributes": {"dynamic": 1}}),
]
"""Wrong constants and outputs of 20 columns, for every operator that ends with a layer normalization."""


def _case(outputs: tuple[str, ...] = ("y", "q"), attributes: dict[str, Any] | None = None, **changes: Any) -> Case:
    inputs = [np.zeros((3, 20), F32), np.zeros((3, 20), F32), *norm(20)]
    for name, value in changes.items():
        inputs[NAMES.index(name)] = value
    return Case("QLayerNorm", "bad", inputs, attributes or {}, outputs)


@pytest.mark.parametrize(
    ("message", "changes"),
    [("last dimension of x" if message == "gamma must have" else message, changes) for message, changes in BAD_NORMS]
    + [("gamma must have", {"gamma": np.zeros(0, F32)})],
    ids=str,
)
def test_a_bad_model_gets_an_error(message: str, changes: dict[str, Any]) -> None:
    if "gamma" in changes:  # without the inputs that would be found wrong first
        changes = {**changes, "beta": None}
    with pytest.raises(Exception, match=message):
        forms.kernel(_case(**changes), "")


@pytest.mark.parametrize("isa", forms.instruction_sets())
def test_rows_of_one_value_become_beta(isa: str) -> None:
    gamma, beta, *_ = norm(37)
    x = np.full((4, 37), 3.25, F32)
    y = forms.kernel(Case("QLayerNorm", "constant", [x, None, gamma, beta], {}, ("y",)), isa)["y"]
    assert beta is not None
    np.testing.assert_allclose(y, np.broadcast_to(beta, y.shape), atol=1e-4)
