"""QSparseLinear: what its kernel refuses, and how its weights are tuned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from onnxcompress.torch.ops import TORCH_OPS
from tests.ops import forms
from tests.ops.cases.case import Case
from tests.ops.cases.qsparselinear import CASES

_NAMES = ["x", "x_scale", "x_zero_point", "values", "row_start", "column", "w_scale", "bias", "residual", "y_scale"]
_NAMES += ["y_zero_point", "table"]


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def _changed(case: Case, **inputs: Any) -> Case:
    return replace(case, inputs=[inputs.get(name, x) for name, x in zip(_NAMES, case.inputs, strict=True)])


_BASE = _case("6x64x16, blocks of 4")
_GIVEN: dict[str, Any] = dict(zip(_NAMES, _BASE.inputs, strict=True))
_COLUMN, _START = _GIVEN["column"], _GIVEN["row_start"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"values": _GIVEN["values"][:, :3]}, "values must be"),
        ({"values": _GIVEN["values"][:-1]}, "column must have a number for each block"),
        ({"column": _COLUMN[:-1]}, "column must have a number for each block"),
        ({"column": _COLUMN + 16}, "columns of a row of blocks"),
        ({"column": _COLUMN - 16}, "columns of a row of blocks"),
        ({"column": _COLUMN[::-1].copy()}, "columns of a row of blocks"),
        ({"row_start": _START + 1}, "row_start must go from 0"),
        ({"row_start": np.where(np.arange(5) == 2, 1 << 20, _START).astype(np.int32)}, "row_start must not decrease"),
        ({"row_start": np.where(np.arange(5) == 2, -1, _START).astype(np.int32)}, "row_start must not decrease"),
        ({"row_start": _START[1:] - _START[1]}, "w_scale must have"),
        ({"w_scale": _GIVEN["w_scale"][:5]}, "w_scale must have"),
        ({"bias": _GIVEN["bias"][:5]}, "bias must have"),
        ({"y_scale": np.zeros((), np.float32)}, "y_scale must be positive"),
        ({"y_scale": np.ones(3, np.float32)}, "y_scale must have"),
        ({"x_scale": np.float32(-1)}, "x_scale must be positive"),
        ({"table": np.zeros(255, np.uint8)}, "table must have 256"),
        ({"x": _GIVEN["x"][:, :63]}, "not in_features"),
        ({"residual": np.zeros((6, 15), np.float32)}, "residual has not the shape"),
    ],
)
def test_the_kernel_refuses(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(_changed(_BASE, **inputs), "")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"in_features": 0}, "1 to 65536 inputs"),
        ({"in_features": 1 << 40}, "1 to 65536 inputs"),
        ({"in_features": 32}, "columns of a row of blocks"),
        ({"activation": "swish"}, "no activation is called 'swish'"),
    ],
)
def test_the_kernel_refuses_attributes(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(replace(_BASE, attributes={**_BASE.attributes, **attributes}), "")


def test_the_kernel_refuses_parameters_of_too_few_rows() -> None:
    case = _case("rows, blocks of 4")
    with pytest.raises(Exception, match="one value for each row"):
        forms.kernel(_changed(case, x_scale=case.inputs[1][:, :4]), "")  # type: ignore[index]


def test_what_blocks_hold_beyond_the_matrix_does_not_count() -> None:
    case = _case("17x31x130, blocks of 16")
    values, column = np.array(case.inputs[3]), np.array(case.inputs[5])
    values[column == 7, :, 3] = 99  # the 32nd input of 31
    start = case.inputs[4]
    assert start is not None
    values[start[-2] :, 2:] = 99  # outputs from 130 on
    changed = _changed(case, values=values)
    for form in (forms.reference, forms.body, lambda c: forms.kernel(c, "")):
        np.testing.assert_array_equal(form(changed)["y"], form(case)["y"])
    few = replace(case, inputs=[case.inputs[0][:5], *case.inputs[1:]])  # type: ignore[index]
    few_changed = _changed(few, values=values)
    np.testing.assert_array_equal(forms.kernel(few_changed, "")["y"], forms.kernel(few, "")["y"])


def test_gradients_reach_the_blocks_and_no_other_weights() -> None:
    case = _case("6x64x16, blocks of 4, to floats")
    tensors = [None if x is None else torch.from_numpy(np.array(x)) for x in case.inputs]
    values = tensors[3]
    assert values is not None
    tensors[3] = tuned = values.to(torch.float32).requires_grad_()
    attributes = {"activation": "", "dynamic": 0, **case.attributes}
    _, y, _, _ = TORCH_OPS["QSparseLinear"](attributes, *tensors)
    y.square().sum().backward()
    gradient = tuned.grad
    assert gradient is not None
    assert gradient.shape == values.shape
    assert (gradient != 0).float().mean() > 0.9
