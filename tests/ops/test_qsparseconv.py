"""QSparseConv: what its kernel refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qsparseconv import CASES

_BASE = next(case for case in CASES if case.name == "3x3, blocks of 4")


def _changed(index: int, value: Any) -> Case:
    return replace(_BASE, inputs=[value if i == index else x for i, x in enumerate(_BASE.inputs)])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kernel_shape": (3,)}, "kernel_shape must be two"),
        ({"kernel_shape": (0, 3)}, "kernel_shape must be two"),
        ({"kernel_shape": (2, 3)}, "columns of a row of blocks"),
        ({"kernel_shape": (1 << 16, 1 << 16)}, "1 to 65536 inputs"),
        ({"in_channels": 0}, "in_channels"),
        ({"in_channels": -4}, "in_channels"),
        ({"strides": (0, 1)}, "strides and dilations"),
        ({"strides": (1, 1, 1)}, "strides and dilations"),
        ({"dilations": (1, 1 << 40)}, "strides and dilations"),
        ({"dilations": (9, 9)}, "kernel is larger"),
        ({"pads": (0, 0, 0)}, "pads four"),
        ({"pads": (0, 0, 0, -1)}, "pads four"),
    ],
)
def test_the_kernel_refuses_attributes(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(replace(_BASE, attributes={**_BASE.attributes, **attributes}), "")


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, np.zeros((1, 12, 13, 31), np.uint8), "in_channels"),
        (0, np.zeros((12, 13, 32), np.uint8), "in_channels"),
        (0, np.zeros((1, 0, 13, 32), np.uint8), "kernel is larger"),
        (5, np.full_like(np.asarray(_BASE.inputs[5]), 72), "columns of a row of blocks"),
        (6, np.ones(49, np.float32) * 0.01, "bias must have|w_scale must have"),
        (8, np.float32(0), "y_scale must be positive"),
    ],
)
def test_the_kernel_refuses(index: int, value: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(_changed(index, value), "")


def test_it_is_the_dense_convolution() -> None:
    """Another kernel, and one that knows nothing of blocks: QConv on the dense weights."""
    from onnxcompress.ops.blocks import from_blocks

    x, x_scale, x_zero, values, row_start, column, w_scale, bias, y_scale, y_zero, _ = _BASE.inputs
    assert values is not None and row_start is not None and column is not None
    w = from_blocks(values, row_start, column, 50, 288).reshape(50, 3, 3, 32)
    dense = Case("QConv", "dense", [x, x_scale, x_zero, w, w_scale, bias, y_scale, y_zero], {"pads": (1, 1, 1, 1)})
    difference = forms.kernel(dense, "")["y"].astype(int) - forms.kernel(_BASE, "")["y"]
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01
