"""QPool refuses windows that are none, and agrees with ONNX Runtime's pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

from tests.ops import forms
from tests.ops.cases.case import Array, Case
from tests.ops.refusals import changed, refuses

_x = np.random.default_rng(0).integers(0, 256, (1, 9, 8, 5)).astype(np.uint8)
_one, _zero = np.asarray(np.float32(1)), np.asarray(np.uint8(0))
MAX = Case("QPool", "max", [_x, _one, _zero, _one, _zero, None], {"kernel_shape": (3, 3)})
MEAN = changed(MAX, mode="average")


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ({}, {"mode": "least"}, "mode must be"),
        ({}, {"kernel_shape": (3,)}, "kernel_shape and strides must have 2 values, pads 4"),
        ({}, {"pads": (1, 1)}, "kernel_shape and strides must have 2 values, pads 4"),
        ({}, {"strides": (1, 1, 1)}, "kernel_shape and strides must have 2 values, pads 4"),
        ({}, {"kernel_shape": (0, 3)}, "kernel_shape must be at least 1"),
        ({}, {"kernel_shape": (1 << 40, 1 << 40)}, "kernel_shape must be at least 1"),
        ({}, {"strides": (0, 1)}, "strides must be at least 1"),
        ({}, {"pads": (0, 3, 0, 0)}, "pads must be less than kernel_shape"),
        ({}, {"pads": (0, 0, -1, 0)}, "pads must be less than kernel_shape"),
        ({}, {"kernel_shape": (11, 1)}, "larger than the padded image"),
        ({0: _x[0]}, {}, r"x must be \[N, H, W, C\]"),
        ({0: _x[:, :0]}, {"pads": (2, 0, 2, 0)}, "the image is empty"),
        ({0: _x[:, :0]}, {"mode": "global_average"}, "the image is empty"),
        ({3: np.asarray(np.float32(2))}, {}, "max needs equal parameters"),
        ({4: np.asarray(np.uint8(3))}, {}, "max needs equal parameters"),
        ({5: np.zeros(3, np.uint8)}, {}, "table must be 256 bytes"),
    ],
)
def test_a_bad_model_is_refused(inputs: dict[int, Array], attributes: dict[str, Any], message: str) -> None:
    refuses(changed(MAX, inputs, **attributes), message)


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((2, 4), (3, 1), (0, 2, 1, 3)),
        ((5, 2), (2, 3), (2, 0, 2, 1)),
        ((1, 1), (2, 2), (0, 0, 0, 0)),
        ((11, 2), (3, 2), (0, 0, 0, 0)),
        ((12, 10), (4, 5), (0, 0, 0, 0)),
        ((12, 2), (2, 2), (0, 0, 0, 0)),
    ],
)
def test_it_is_the_standard_pooling(
    mode: str, ceil_mode: int, kernel: tuple[int, int], stride: tuple[int, int], pads: tuple[int, ...]
) -> None:
    """Where windows begin and what they count, against ONNX Runtime's float operators."""
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": pads, "ceil_mode": ceil_mode}
    text = ", ".join(f"{name} = {list(v) if isinstance(v, tuple) else v}" for name, v in attributes.items())
    op = {"max": "MaxPool", "average": "AveragePool"}[mode]
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[1,5,9,8] x) => (float[N,C,H,W] y) '
        f"{{ y = {op} <{text}> (x) }}"
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": _x.transpose(0, 3, 1, 2).astype(np.float32)})[0].transpose(0, 2, 3, 1)
    case = changed(MAX if mode == "max" else MEAN, **attributes)
    for actual in (forms.kernel(case, "")["y"], forms.kernel(case, "scalar")["y"], forms.reference(case)["y"]):
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max(initial=0) <= (0 if mode == "max" else 0.5001)


def test_padding_never_wins_nor_counts() -> None:
    dark = changed(MAX, {0: np.full((1, 2, 2, 70), 3, np.uint8)}, pads=(2, 2, 2, 2))
    assert (forms.kernel(dark, "")["y"] == 3).all()
    mean = changed(dark, mode="average")
    assert (forms.kernel(mean, "")["y"] == 3).all()
