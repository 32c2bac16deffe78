"""MatMul + Add as Gemm; transposes, pads and zero biases taken in."""

from __future__ import annotations

import pytest

from onnxcompress.optimizer import optimize
from tests.passes.fuse.test_affine import with_weights
from tests.passes.simplify.models import assert_same, ops

Case = tuple[str, dict[str, tuple[int, ...]], dict[str, int]]

FUSED: dict[str, Case] = {
    "matmul, add": (
        "g (float[n,3] x, float w, float b) => (float[n,4] y) { t = MatMul(x, w)\n y = Add(b, t) }",
        {"w": (3, 4), "b": (4,)}, {"Gemm": 1},
    ),
    "transpose, gemm": (
        "g (float[3,n] x, float w, float b) => (float[n,4] y) { t = Transpose(x)\n y = Gemm(t, w, b) }",
        {"w": (3, 4), "b": (4,)}, {"Gemm": 1},
    ),
    "pad, conv": (
        "g (float[n,3,8] x, float w) => (float[n,4,9] y) { p = Constant<value_ints=[0,0,1,0,0,2]>()\n"
        " t = Pad(x, p)\n y = Conv(t, w) }",
        {"w": (4, 3, 3)}, {"Conv": 1},
    ),
    "pad, average pool that counts pads": (
        "g (float[n,3,8] x) => (float[n,3,9] y) { p = Constant<value_ints=[0,0,1,0,0,2]>()\n t = Pad(x, p)\n"
        " y = AveragePool<kernel_shape=[3], count_include_pad=1>(t) }", {}, {"AveragePool": 1},
    ),
}  # fmt: skip

KEPT: dict[str, Case] = {
    "matmul of rank 3, add": (
        "g (float[n,5,3] x, float w, float b) => (float[n,5,4] y) { t = MatMul(x, w)\n y = Add(t, b) }",
        {"w": (3, 4), "b": (4,)}, {"MatMul": 1, "Add": 1},
    ),
    "pad by ones, conv": (
        "g (float[n,3,8] x, float w) => (float[n,4,9] y) { p = Constant<value_ints=[0,0,1,0,0,2]>()\n"
        " o = Constant<value_float=1.0>()\n t = Pad(x, p, o)\n"
        " y = Conv(t, w) }", {"w": (4, 3, 3)}, {"Pad": 1, "Conv": 1},
    ),
    "pad by reflection, conv": (
        "g (float[n,3,8] x, float w) => (float[n,4,9] y) { p = Constant<value_ints=[0,0,1,0,0,2]>()\n"
        " t = Pad<mode=\"reflect\">(x, p)\n y = Conv(t, w) }", {"w": (4, 3, 3)}, {"Pad": 1, "Conv": 1},
    ),
    "pad, average pool that does not count pads": (
        "g (float[n,3,8] x) => (float[n,3,9] y) { p = Constant<value_ints=[0,0,1,0,0,2]>()\n t = Pad(x, p)\n"
        " y = AveragePool<kernel_shape=[3]>(t) }", {}, {"Pad": 1, "AveragePool": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "shapes", "expected"),
    [*FUSED.values(), *KEPT.values()],
    ids=[*FUSED, *(f"not {k}" for k in KEPT)],
)
def test_linear(body: str, shapes: dict[str, tuple[int, ...]], expected: dict[str, int]) -> None:
    model = with_weights(body, shapes)
    result = optimize(model)
    assert ops(result) == expected
    assert_same(model, result)
