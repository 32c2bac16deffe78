"""Taking scalar affine maps over into scales and zero points."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcompress.passes.quantize import InsertQDQ, Scheme, plan_quantization
from onnxcompress.passes.quantize.affine import Affine, affine_parameters, find_affine, root_parameters
from tests.passes.quantize.models import Array, build, execute, min_max, normal, ops

SCALARS = {
    "two": np.float32(2),
    "half": np.array([0.5], np.float32),
    "one": np.float32(1),
    "minus": np.float32(-2),
}


def found(body: str, extra: dict[str, Array] | None = None) -> Affine | None:
    known = SCALARS | (extra or {})
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    weights = {name: array for name, array in known.items() if name in words}
    model = build(f"g (float[M, 4] x) => (float[A, B] z) {{ r = Tanh (x) {body} z = Neg (y) }}", weights)  # type: ignore[arg-type]
    return find_affine(next(node for node in model.graph if node.op_type == "Neg").inputs[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "factor", "offset"),
    [
        ("y = Mul (r, two)", 2, 0),
        ("y = Mul (two, r)", 2, 0),
        ("y = Div (r, two)", 0.5, 0),
        ("a = Mul (r, two) y = Add (a, one)", 2, 1),
        ("a = Add (r, one) y = Mul (a, two)", 2, 2),
        ("a = Sub (r, one) y = Div (a, half)", 2, -2),
        ("a = Mul (r, minus) y = Sub (one, a)", 2, 1),
    ],
)
def test_map_is_followed_to_its_root(body: str, factor: float, offset: float) -> None:
    affine = found(body)
    assert affine is not None and affine.root.name == "r"
    assert (affine.factor, affine.offset) == (factor, offset)


@pytest.mark.parametrize(
    "body",
    [
        "y = Mul (r, minus)",
        "y = Div (two, r)",
        "y = Mul (r, r)",
        "y = Mul (r, row)",
        "y = Mul (r, square)",
        "y = Exp (r)",
    ],
)
def test_what_is_no_affine_map(body: str) -> None:
    extra = {"row": normal(4), "square": np.ones((1, 1), np.float32)}
    assert found(body, extra) is None


def test_value_that_others_read_ends_the_map() -> None:
    text = """g (float[M, 4] x) => (float[A, B] z, float[C, D] t) {
        r = Tanh (x)
        a = Mul (r, two)
        t = Exp (a)
        b = Add (a, one)
        y = Mul (b, two)
        z = Neg (y)
    }"""
    model = build(text, {"two": np.array(2, np.float32), "one": np.array(1, np.float32)})
    affine = find_affine(next(node for node in model.graph if node.op_type == "Neg").inputs[0])  # type: ignore[arg-type]
    assert affine is not None and affine.root.name == "b"
    assert (affine.factor, affine.offset) == (2, 0)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.01, 100),
    st.floats(-50, 50),
    st.floats(-100, 0),
    st.floats(0, 100),
    st.lists(st.floats(0, 1), min_size=5, max_size=20),
)
def test_values_are_within_one_step(factor: float, offset: float, low: float, high: float, where: list[float]) -> None:
    """Quantized at the root, read as the image: at most half a step from the image (and half for the range's end)."""
    affine = Affine(ir.Value(name="r"), factor, offset)
    read = affine_parameters(low, high, affine, ir.DataType.UINT8)
    if read is None:
        plain = max(high, offset, 0) - min(low, offset, 0)
        assert abs(offset) < plain / 255 * 1.0001
        return
    steps = offset / read.scale
    assert abs(steps - round(steps)) < 1e-3 or abs(steps) <= 0.25
    write = root_parameters(read, affine)
    assert 0 <= write.zero_point <= 255 and 0 <= read.zero_point <= 255
    image = np.array([low + (high - low) * w for w in where])
    back = read.dequantize(write.quantize(((image - offset) / factor).astype(np.float32)))
    slack = 1e-5 * (abs(low) + abs(high) + abs(offset) + 1)
    assert np.all(np.abs(back - image) <= 1.26 * read.scale + slack)


def test_offset_below_a_step_is_refused() -> None:
    affine = Affine(ir.Value(name="r"), 1.0, 0.5)
    assert affine_parameters(-1.0, 254.0, affine, ir.DataType.UINT8) is None
    assert affine_parameters(-1.0, 254.0, affine, ir.DataType.INT8) is not None, "a quarter of a signed step"
    assert affine_parameters(-1.0, 100.0, Affine(ir.Value(name="r"), 1.0, 0.5), ir.DataType.INT8) is None
    assert affine_parameters(-1.0, 254.0, Affine(ir.Value(name="r"), 1.0, 0.2), ir.DataType.UINT8) is not None


CHAIN = """g (float[1, 4, 6, 6] x) => (float[A, B, C, D] y) {
    [first] a = Conv (x, w)
    b = Mul (a, two)
    c = Add (b, one)
    [second] y = Conv (c, w)
}"""


def test_chain_is_taken_over_and_stays_within_quantization_noise() -> None:
    weights = {"w": normal(4, 4, 1, 1), "two": np.float32(2), "one": np.float32(1)}
    model, feed = build(CHAIN, weights), {"x": normal(1, 4, 6, 6, seed=2)}  # type: ignore[arg-type]
    ranges = min_max(model, Scheme(), feed)
    assert set(plan_quantization(model, Scheme()).affines) == {"c"}
    before = execute(model, feed)[0]
    InsertQDQ(ranges, Scheme())(model)
    assert "Mul" not in ops(model) and "Add" not in ops(model)
    after = execute(model, feed)[0]
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()


def test_chain_whose_offset_lies_below_a_step_gets_pairs_of_its_own() -> None:
    weights = {"w": normal(4, 4, 1, 1) * 25, "two": np.float32(2), "one": np.float32(1)}
    model, feed = build(CHAIN, weights), {"x": normal(1, 4, 6, 6, seed=2)}  # type: ignore[arg-type]
    before, ranges = execute(model, feed)[0], min_max(model, Scheme(), feed)
    InsertQDQ(ranges, Scheme())(model)
    assert ops(model).count("Mul") == 1 and ops(model).count("Add") == 1
    after = execute(model, feed)[0]
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()
