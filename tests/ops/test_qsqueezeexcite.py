"""QSqueezeExcite refuses layers that do not fit, and gates by what the means of the channels say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Array, Case
from tests.ops.cases.qsqueezeexcite import CASES
from tests.ops.refusals import changed, refuses

CASE = next(case for case in CASES if case.name == "no biases")  # [2, 6, 6, 32], 8 hidden
X, W1, W1_SCALE, B1, W2, W2_SCALE, B2, TABLE = 0, 3, 4, 5, 6, 7, 8, 11


def _weights(*shape: int) -> Array:
    return np.ones(shape, np.int8)


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ({W1: _weights(8)}, {}, r"w1 must be \[R, C\]"),
        ({W2: _weights(32, 7)}, {}, r"w2 must be \[C, R\]"),
        ({W2: _weights(31, 8)}, {}, r"w2 must be \[C, R\]"),
        ({W1: _weights(0, 32), W2: _weights(32, 0)}, {}, "the layers are empty"),
        ({X: np.zeros((2, 6, 6, 31), np.uint8)}, {}, "with the channels of w1"),
        ({X: np.zeros((6, 6, 32), np.uint8)}, {}, "with the channels of w1"),
        ({W1_SCALE: np.ones(7, np.float32)}, {}, "w1_scale has a wrong shape"),
        ({W2_SCALE: np.ones(8, np.float32)}, {}, "w2_scale has a wrong shape"),
        ({B1: np.ones(9, np.float32)}, {}, "b1 has a wrong shape"),
        ({B2: np.ones(31, np.float32)}, {}, "b2 has a wrong shape"),
        ({TABLE: np.zeros(10, np.uint8)}, {}, "table must be 256 bytes"),
        ({}, {"gate": "open"}, "gate must be"),
        ({}, {"activation": "gelu"}, "activation must be"),
    ],
)
def test_a_bad_model_is_refused(inputs: dict[int, Array], attributes: dict[str, Any], message: str) -> None:
    refuses(changed(CASE, inputs, **attributes), message)


@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
@pytest.mark.parametrize("shape", [(1, 257, 1, 24), (1, 33, 31, 64), (1, 3, 3, 255), (2, 300, 2, 20), (1, 1, 513, 100)])
def test_the_sums_are_exact(instruction_set: str, shape: tuple[int, int, int, int]) -> None:
    """A gate of alpha * mean with identity layers and x of one value shows a sum that is off by one."""
    c = shape[3]
    rng = np.random.default_rng(c)
    x = rng.integers(250, 256, shape).astype(np.uint8)
    pixels = shape[1] * shape[2]
    eye = np.eye(c, dtype=np.int8)
    one, f = np.float32(1), np.float32
    inputs = [x, one, np.uint8(0), eye, one, None, eye, one, None, f(1), np.uint8(0), None]
    case = Case("QSqueezeExcite", "sums", [None if v is None else np.asarray(v) for v in inputs],
                {"alpha": 1 / 256, "beta": 0.0})  # fmt: skip
    y = forms.kernel(case, instruction_set)["y"]
    # q = rint(x * mean / 256): where the product is not near a tie, a sum wrong by a pixel's 255 shows.
    exact = x.astype(np.float64) * (x.sum((1, 2), dtype=np.int64)[:, None, None] / pixels) / 256
    sure = np.abs(exact % 1 - 0.5) > 1e-3
    np.testing.assert_array_equal(y[sure], np.rint(exact)[sure])
