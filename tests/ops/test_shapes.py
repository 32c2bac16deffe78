"""The shapes that are inferred of the operators' results are those that the numpy references compute."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.ops import OPS
from onnxcompress.ops.blocks import from_blocks, output_count
from onnxcompress.ops.qlinear4 import unpack4
from onnxcompress.ops.shapes import Shape, output_shapes, weight_matrix
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Case

WEIGHTED = {
    "QLinear", "QLinear4", "WeightOnlyLinear", "QSparseLinear", "QLinearLayerNorm", "QSparseLinearLayerNorm", "QConv",
    "QSparseConv", "QConvTranspose",
}  # fmt: skip


def given(case: Case) -> dict[str, Shape | None]:
    names = OPS[case.op].names(len(case.inputs))
    return {name: np.shape(x) for name, x in zip(names, case.inputs, strict=True) if x is not None}


@pytest.mark.parametrize("case", ALL, ids=str)
def test_shapes_are_those_of_the_reference(case: Case) -> None:
    shapes = output_shapes(OPS[case.op], case.attributes, given(case))
    for name, array in forms.reference(case).items():
        assert shapes[name] == array.shape, name


@pytest.mark.parametrize("case", [next(case for case in ALL if case.op == op) for op in OPS], ids=str)
def test_an_unknown_input_leaves_the_shape_unknown(case: Case) -> None:
    inputs = given(case)
    first = "x_0" if case.op == "QConcat" else next(iter(inputs))
    shapes = output_shapes(OPS[case.op], case.attributes, {**inputs, first: None})
    assert set(shapes) == {port.name for port in OPS[case.op].outputs}
    assert not any(shapes.values())


@pytest.mark.parametrize(
    ("op", "attributes", "inputs", "shape"),
    [
        ("QLinear", {}, {"x": ("B", "S", 8), "w": (5, 8)}, ("B", "S", 5)),
        ("QConv", {"pads": (1, 1, 1, 1)}, {"x": ("N", "H", "W", 8), "w": (5, 3, 3, 8)}, ("N", "H", "W", 5)),
        ("QConv", {"strides": (2, 1)}, {"x": ("N", "H", 9, 8), "w": (5, 1, 3, 8)}, ("N", None, 7, 5)),
        ("QConv", {"x_layout": "NCHW"}, {"x": ("N", 3, "H", "W"), "w": (5, 1, 1, 3)}, ("N", "H", "W", 5)),
        ("QConvTranspose", {"y_layout": "NCHW"}, {"x": ("N", "H", 4, 8), "w": (5, 2, 2, 8)}, ("N", 5, None, 5)),
        ("QPool", {"mode": "max", "strides": (2, 2)}, {"x": ("N", "H", 8, 3)}, ("N", None, 4, 3)),
        ("QConcat", {}, {"tables": (2, 256), "x_0": (1, "H", 4, 3), "x_1": (1, "H", 4, "C")}, (1, "H", 4, None)),
        ("QResize", {"scales": (2, 1)}, {"x": ("N", "H", "W", 3)}, ("N", None, "W", 3)),
        ("QAttention", {}, {"qkv": ("B", "S", "C")}, ("B", "S", None)),
        ("DequantizeNCHW", {}, {"x": ("N", "H", "W", 8)}, ("N", 8, "H", "W")),
    ],
)
def test_symbols_go_through(op: str, attributes: dict[str, object], inputs: dict[str, Shape], shape: Shape) -> None:
    assert next(iter(output_shapes(OPS[op], attributes, inputs).values())) == shape  # type: ignore[arg-type]


def test_an_input_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="QLinear has no input 'w'"):
        output_shapes(OPS["QLinear"], {}, {"x": (1, 2)})
    with pytest.raises(ValueError, match="QLinear has another rank"):
        output_shapes(OPS["QLinear"], {}, {"x": (1, 2), "w": ()})
    with pytest.raises(ValueError, match="unpack"):
        output_shapes(OPS["QuantizeNHWC"], {}, {"x": (1, 2)})


@pytest.mark.parametrize("case", [case for case in ALL if case.op in WEIGHTED], ids=str)
def test_the_weight_matrix_has_the_shape_of_the_dense_weights(case: Case) -> None:
    matrix = weight_matrix(OPS[case.op], case.attributes, given(case))
    names = OPS[case.op].names(len(case.inputs))
    inputs = {name: np.asarray(x) for name, x in zip(names, case.inputs, strict=True) if x is not None}
    if case.op.startswith("QSparse"):
        values, row_start, column = (inputs[name] for name in ("values", "row_start", "column"))
        kh, kw = case.attributes.get("kernel_shape", (1, 1))
        k = case.attributes.get("in_features", case.attributes.get("in_channels", 0)) * kh * kw
        n = output_count(row_start, values.shape[1], inputs["w_scale"])
        dense = from_blocks(values, row_start, column, n, k)
    else:
        four = case.op == "QLinear4" or case.attributes.get("bits") == 4
        dense = unpack4(inputs["w"]) if four else inputs["w"]
        if case.op == "WeightOnlyLinear":
            dense = dense[:, : inputs["x"].shape[-1]]
    assert matrix == (dense.shape[0], dense[0].size)


def test_other_operators_have_no_weight_matrix() -> None:
    for case in ALL:
        if case.op not in WEIGHTED:
            assert weight_matrix(OPS[case.op], case.attributes, given(case)) is None, case
    assert weight_matrix(OPS["QLinear"], {}, {"w": None}) is None
