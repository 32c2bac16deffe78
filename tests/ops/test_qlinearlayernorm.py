"""QLinearLayerNorm: errors of bad models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.ops import OPS
from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qlayernorm import norm
from tests.ops.cases.qlinear import STATIC, activations, weights
from tests.ops.test_qlayernorm import BAD_NORMS

F32 = np.float32
NAMES = [port.name for port in OPS["QLinearLayerNorm"].inputs]


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        *BAD_NORMS,
        ("bias", {"bias": np.zeros(19, F32)}),
        ("last dimension of x", {"x": np.zeros((3, 9), np.uint8)}),
    ],
    ids=str,
)
def test_a_bad_model_gets_an_error(message: str, changes: dict[str, Any]) -> None:
    inputs = [*activations(3, 8), *weights(20, 8), np.zeros((3, 20), F32), *norm(20)]
    options: dict[str, Any] = {"attributes": {}, "outputs": ("y", "q")}
    for name, value in changes.items():
        if name in options:
            options[name] = value
        else:
            inputs[NAMES.index(name)] = value
    with pytest.raises(Exception, match=message):
        forms.kernel(Case("QLinearLayerNorm", "bad", inputs, **options, constants=STATIC), "")
