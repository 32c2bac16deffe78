"""QConcat refuses images that do not fit together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops.cases.case import Array, Case
from tests.ops.refusals import changed, refuses

_identity = np.stack([np.arange(256, dtype=np.uint8)] * 2)
_x = np.zeros((2, 4, 6, 8), np.uint8)
CASE = Case("QConcat", "base", [_identity, _x, _x])


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ({0: _identity[:1]}, {}, r"tables must be \[n, 256\]"),
        ({0: _identity[:, :255]}, {}, r"tables must be \[n, 256\]"),
        ({0: _identity[0]}, {}, r"tables must be \[n, 256\]"),
        ({}, {"upsample": (1,)}, "upsample must have a value for each image"),
        ({}, {"upsample": (1, 0)}, "upsample must be at least 1"),
        ({}, {"upsample": (1, 2)}, "images differ"),
        ({}, {"identity": (1,)}, "identity must have a value for each image"),
        ({0: 255 - _identity}, {"identity": (0, 1)}, "identity is given for a table that is none"),
        ({2: _x[:1]}, {}, "images differ"),
        ({2: _x[:, :3]}, {}, "images differ"),
        ({2: _x[:, :, :3]}, {}, "images differ"),
        ({2: _x[0]}, {}, r"images must be uint8 \[N, H, W, C\]"),
    ],
)
def test_a_bad_model_is_refused(inputs: dict[int, Array], attributes: dict[str, Any], message: str) -> None:
    refuses(changed(CASE, inputs, **attributes), message)
