"""Functions of one uint8 tensor, and what is said of them to function bodies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.convolution.describing import describe
from onnxcompress.passes.lower.convolution.tables import Function, quantize, tabulate
from onnxcompress.passes.quantize.arithmetic import Parameters
from onnxcompress.runtime import open_session
from tests.ops import forms
from tests.ops.cases.case import Array, Case
from tests.passes.lower.networks import lower, lowered, network, quantized
from tests.passes.quantize.models import build, relative

BYTES = np.arange(256, dtype=np.uint8)
CONSTANTS: dict[str, Array] = {
    "s": np.array(0.05, np.float32), "z": np.array(100, np.uint8), "t": np.array(0.03, np.float32),
    "c": np.array([0.7], np.float32), "row": np.array([1, 2], np.float32), "none": np.array(0, np.uint8),
}  # fmt: skip


def functions(body: str, output: str = "uint8[256] y") -> tuple[ir.Model, dict[str, Function]]:
    model = build(f"g (uint8[256] q) => ({output}) {{ {body} }}", {n: a for n, a in CONSTANTS.items() if n in body})
    return model, {value.name or "": function for value, function in tabulate(model.graph).items()}


@pytest.mark.parametrize(
    "chain",
    [
        "y = HardSwish (x)",
        "y = Clip (x, c)",
        "a = Sigmoid (x)\ny = Mul (a, x)",
        "a = Mul (c, x)\nb = Sub (c, a)\ny = Tanh (b)",
        "h = QuantizeLinear (x, t, z)\nd = DequantizeLinear (h, t, z)\ny = Add (d, x)",
        "y = Div (c, x)",  # infinite at 0
    ],
)
def test_the_values_are_those_of_onnx_runtime(chain: str) -> None:
    model, found = functions(f"x = DequantizeLinear (q, s, z)\n{chain}\nr = QuantizeLinear (y, t, z)", "uint8[256] r")
    (expected,) = open_session(model, optimize=False).run(None, {"q": BYTES})
    assert found["r"].root.name == "q"
    assert np.abs(found["r"].values.astype(int) - expected).max() <= 1
    assert (found["r"].values != expected).mean() <= 0.01


@pytest.mark.parametrize(
    "chain",
    [
        "r = Add (x, row)",  # several numbers
        "o = DequantizeLinear (p, s, z)\nr = Add (x, o)",  # two tensors
        "r = CumSum (x, axis)",  # no element-wise operator
    ],
)
def test_other_values_are_no_functions_of_a_byte(chain: str) -> None:
    text = f"g (uint8[2] q, uint8[2] p, int64 axis) => (float[2] r) {{ x = DequantizeLinear (q, s, z)\n{chain} }}"
    model = build(text, {n: a for n, a in CONSTANTS.items() if n in text})
    assert "r" not in {value.name for value in tabulate(model.graph)}


def test_quantizing_turns_what_is_no_number_to_0() -> None:
    given = Parameters(1.0, 3, ir.DataType.UINT8)
    assert quantize(np.array([np.nan, -np.inf, np.inf, 0.5, 1.5], np.float32), given).tolist() == [0, 0, 255, 3, 5]


def _table(function: str, given: Parameters, made: Parameters) -> Array:
    x = given.dequantize(BYTES)
    gate = {"silu": 1 / (1 + np.exp(-x)), "hardswish": np.clip(x / 6 + 0.5, 0, 1), "linear": np.float32(1)}
    values = 1 / (1 + np.exp(-x)) if function == "sigmoid" else x * gate[function]
    return quantize(values, made)


GIVEN = Parameters(0.06, 90, ir.DataType.UINT8)


@pytest.mark.parametrize(
    ("function", "made"),
    [
        ("silu", Parameters(0.05, 10, ir.DataType.UINT8)),
        ("hardswish", Parameters(0.05, 20, ir.DataType.UINT8)),
        ("sigmoid", Parameters(1 / 255, 0, ir.DataType.UINT8)),
        ("linear", Parameters(0.09, 70, ir.DataType.UINT8)),
    ],
)
def test_known_functions_are_recognized_and_computed_by_the_body(function: str, made: Parameters) -> None:
    table = _table(function, GIVEN, made)
    attributes = describe(table, GIVEN)
    assert attributes["table_as"] == function
    case = Case("QTable", function, [BYTES, table], attributes)
    (actual,) = forms.body(case).values()
    off = actual.astype(int) - table
    assert np.abs(off).max() <= 2  # a step by the description, one by rounding a quotient to the other side
    assert np.abs(off).mean() <= 0.3 and abs(off.mean()) <= 0.15


@pytest.mark.parametrize(("least", "most"), [(0, 255), (90, 255), (90, 190)])
def test_bounds_are_exact(least: int, most: int) -> None:
    table = np.clip(BYTES, least, most)
    case = Case("QTable", "clip", [BYTES, table], describe(table, GIVEN))
    assert case.attributes["table_as"] == "clip"
    np.testing.assert_array_equal(forms.body(case)["y"], table)


def test_other_tables_are_looked_up() -> None:
    table = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    assert describe(table, GIVEN) == {}
    assert describe(np.full(256, 7, np.uint8), GIVEN)["table_as"] == "clip"
    coarse = Parameters(2.0, 255, ir.DataType.UINT8)  # a zero point that no positive slope fits
    assert describe(255 - BYTES, coarse) == {}


def test_bodies_with_descriptions_are_near_those_without() -> None:
    body = "a = Same (x, w)\nh = HardSwish (a)\nc = Conv (h, v)\ng = Sigmoid (c)\nm = Mul (c, g)\ny = Conv (m, u)"
    result = lowered(quantized(network(body)), hints=True)
    kinds = [node.attributes["table_as"].value for node in result.lowered.graph if "table_as" in node.attributes]
    assert kinds == ["hardswish", "silu"]
    (expected,), (actual,) = result.outputs()
    assert 1e-6 < relative(actual, expected) < 0.03


def test_a_clip_that_saturation_does_needs_no_table() -> None:
    first = next(
        n for n in lower("a = Same (x, w)\nr = Relu (a)\ny = Conv (r, v)").lowered.graph if n.op_type == "QConv"
    )
    assert len(first.inputs) == 8
