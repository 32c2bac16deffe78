"""FoldFocus: the same numbers from one convolution, and every guard."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.convolution.focus import FoldFocus
from tests.passes.quantize.models import Array, build, execute, normal, ops

SLICES = "\n".join(f"s{i}{j} = Slice (x, at{i}{j}, ends, axes, steps)" for i in (0, 1) for j in (0, 1))
CONSTANTS = {
    **{f"at{i}{j}": np.array([i, j]) for i in (0, 1) for j in (0, 1)},
    "ends": np.array([2**63 - 1] * 2), "axes": np.array([2, 3]), "steps": np.array([2, 2]), "near": np.array([6, 6]),
    "uneven": np.array([2, 1]), "w": normal(8, 12, 3, 3, seed=1), "b": normal(8, seed=2),
    "half": normal(8, 6, 3, 3, seed=3), "g": normal(8, 6, 3, 3, seed=4),
}  # fmt: skip
TAIL = "c = Concat <axis = 1> (s00, s10, s01, s11)\ny = Conv <pads = [1, 1, 1, 1]> (c, w, b)"


def model_of(tail: str = TAIL, slices: str = SLICES) -> ir.Model:
    body = f"{slices}\n{tail}"
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return build(
        f"g (float[N, 3, H, W] x) => (float[N, 8, P, Q] y) {{ {body} }}",
        {name: array for name, array in CONSTANTS.items() if name in words},
    )


def feed(height: int = 12, width: int = 8) -> dict[str, Array]:
    return {"x": normal(2, 3, height, width, seed=7)}


@pytest.mark.parametrize(
    "tail",
    [
        TAIL,
        "c = Concat <axis = -3> (s11, s00, s01, s10)\ny = Conv <pads = [0, 1, 2, 1], strides = [2, 1]> (c, w)",
        "c = Concat <axis = 1> (s01, s10)\ny = Conv (c, half, b)",
    ],
)
def test_one_convolution_gives_the_same(tail: str) -> None:
    model = model_of(tail, "\n".join(line for line in SLICES.splitlines() if line[:3] in tail))
    expected = execute(model, feed())
    step = FoldFocus()
    assert step(model).modified
    assert ops(model) == ["Conv"]
    np.testing.assert_allclose(execute(model, feed())[0], expected[0], rtol=1e-5, atol=1e-5)
    assert not step(model).modified


@pytest.mark.parametrize(
    ("tail", "slices"),
    [
        ("c = Concat <axis = 1> (s00, s10, s01, s11)\ny = Conv <group = 2> (c, g)", SLICES),
        ("c = Concat <axis = 1> (s00, s10, s01, s11)\ny = Conv <dilations = [2, 2]> (c, w)", SLICES),
        ('c = Concat <axis = 1> (s00, s10, s01, s11)\ny = Conv <auto_pad = "SAME_UPPER"> (c, w)', SLICES),
        ("c = Concat <axis = 1> (s00, s10, s01, s11)\na = Conv (c, w)\nr = ReduceMax (c)\ny = Add (a, r)", SLICES),
        ("c = Concat <axis = 1> (s00, s00, s01, s11)\ny = Conv (c, w)", SLICES),  # a phase twice
        (TAIL, SLICES.replace("ends", "near")),
        (TAIL, SLICES.replace("steps", "uneven")),
        (TAIL, "e = Exp (x)\n" + SLICES.replace("s11 = Slice (x", "s11 = Slice (e")),
        ("c = Concat <axis = 1> (s00, s10, s01, x)\ny = Conv (c, w)", SLICES),
    ],
)
def test_others_are_left_alone(tail: str, slices: str) -> None:
    model = model_of(tail, slices)
    before = ops(model)
    assert not FoldFocus()(model).modified
    assert ops(model) == before
