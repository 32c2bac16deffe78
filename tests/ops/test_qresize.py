"""QResize refuses scales that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops.cases.case import Array, Case
from tests.ops.refusals import changed, refuses

_x = np.zeros((1, 4, 6, 8), np.uint8)
CASE = Case("QResize", "base", [_x], {"scales": (2, 2)})


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ({}, {"scales": (2,)}, "scales must have 2 values"),
        ({}, {"scales": (0, 2)}, "scales must be at least 1"),
        ({}, {"scales": (2, 1 << 40)}, "scales must be at least 1"),
        ({0: _x[0]}, {}, r"x must be \[N, H, W, C\]"),
        ({1: np.zeros(16, np.uint8)}, {}, "table must be 256 bytes"),
    ],
)
def test_a_bad_model_is_refused(inputs: dict[int, Array], attributes: dict[str, Any], message: str) -> None:
    refuses(changed(CASE, inputs, **attributes), message)
