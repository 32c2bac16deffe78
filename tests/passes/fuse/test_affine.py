"""Factors and shifts go into weights, where the weights may be changed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.optimizer import optimize
from tests.passes.simplify.models import assert_same, ops, parse

RANDOM = np.random.default_rng(0)


def with_weights(body: str, shapes: dict[str, tuple[int, ...]]) -> ir.Model:
    """A model whose inputs named in `shapes` become random initializers; those that begin with `var` are positive."""
    model = parse(body, ir_version=8)
    for value in list(model.graph.inputs):
        if value.name in shapes:
            normal = RANDOM.standard_normal(shapes[value.name])
            array = (np.abs(normal) + 0.5 if value.name.startswith("var") else normal).astype(np.float32)
            model.graph.inputs.remove(value)
            value.shape, value.const_value = ir.Shape(array.shape), ir.tensor(array, name=value.name)
            model.graph.register_initializer(value)
    return model


Case = tuple[str, dict[str, tuple[int, ...]], dict[str, int] | None]

FUSED: dict[str, Case] = {
    "conv, batch norm": (
        "g (float[n,3,8,8] x, float w, float b, float m, float var) => (float[n,4,6,6] y) {"
        " t = Conv(x, w, b)\n y = BatchNormalization(t, b, b, m, var) }",
        {"w": (4, 3, 3, 3), "b": (4,), "m": (4,), "var": (4,)}, {"Conv": 1},
    ),
    "conv without bias, batch norm, relu": (
        "g (float[n,3,8] x, float w, float b, float m, float var) => (float[n,4,6] y) {"
        " t = Conv(x, w)\n u = BatchNormalization<epsilon=0.1>(t, b, b, m, var)\n y = Relu(u) }",
        {"w": (4, 3, 3), "b": (4,), "m": (4,), "var": (4,)}, {"Conv": 1, "Relu": 1},
    ),
    "grouped transposed conv, batch norm": (
        "g (float[n,4,5] x, float w, float b, float m, float var) => (float[n,6,7] y) {"
        " t = ConvTranspose<group=2>(x, w)\n y = BatchNormalization(t, b, b, m, var) }",
        {"w": (4, 3, 3), "b": (6,), "m": (6,), "var": (6,)}, {"ConvTranspose": 1},
    ),
    "gemm, batch norm": (
        "g (float[n,3] x, float w, float b, float m, float var) => (float[n,4] y) {"
        " t = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)\n y = BatchNormalization(t, b, b, m, var) }",
        {"w": (4, 3), "b": (4,), "m": (4,), "var": (4,)}, {"Gemm": 1},
    ),
    "conv, factor and shift by channel": (
        "g (float[n,3,8,8] x, float w, float s) => (float[n,4,6,6] y) { t = Conv(x, w)\n u = Mul(t, s)\n"
        " y = Sub(s, u) }",
        {"w": (4, 3, 3, 3), "s": (4, 1, 1)}, {"Conv": 1},
    ),
    "matmul of rank 3, factor": (
        "g (float[n,5,3] x, float w, float s) => (float[n,5,4] y) { t = MatMul(x, w)\n y = Div(t, s) }",
        {"w": (3, 4), "s": (4,)}, {"MatMul": 1},
    ),
    "factor, shift and factor, each one number of rank 0": (
        "g (float[n,3] x, float a, float b, float c) => (float[n,3] y) { t = Mul(x, a)\n u = Add(t, b)\n"
        " y = Mul(u, c) }",
        {"a": (), "b": (), "c": ()}, {"Mul": 1, "Add": 1},
    ),
    "factor before conv": (
        "g (float[n,3,8] x, float w, float s) => (float[n,4,8] y) { r = Relu(x)\n t = Mul(r, s)\n"
        " y = Conv<pads=[1,1]>(t, w) }", {"w": (4, 3, 3), "s": (1, 3, 1)}, {"Relu": 1, "Conv": 1},
    ),
    "factor before two matmuls": (
        "g (float[n,3] x, float w, float v, float s) => (float[n,4] y, float[n,2] z) { t = Mul(x, s)\n"
        " y = MatMul(t, w)\n z = MatMul(t, v) }", {"w": (3, 4), "v": (3, 2), "s": ()}, {"MatMul": 2},
    ),
    "factor and shift before a padded conv": (
        "g (float[n,3,8] x, float w, float s) => (float[n,4,8] y) { r = Relu(x)\n t = Mul(r, s)\n u = Add(t, s)\n"
        " y = Conv<pads=[1,1]>(u, w) }", {"w": (4, 3, 3), "s": ()}, {"Relu": 1, "Add": 1, "Conv": 1},
    ),
    "shift before convs without padding": (
        "g (float[n,4,8] x, float w, float v, float b, float s) => (float[n,4,8] y, float[n,6,3] z) { r = Relu(x)\n"
        " t = Sub(r, s)\n y = Conv(t, w)\n z = Conv<group=2, strides=[2], auto_pad=\"VALID\">(t, v, b) }",
        {"w": (4, 4, 1), "v": (6, 2, 3), "b": (6,), "s": ()}, {"Relu": 1, "Conv": 2},
    ),
    "shift by channel before a conv": (
        "g (float[n,3,8] x, float w, float s) => (float[n,4,6] y) { r = Relu(x)\n t = Add(r, s)\n y = Conv(t, w) }",
        {"w": (4, 3, 3), "s": (3, 1)}, {"Relu": 1, "Conv": 1},
    ),
    "shift before a gemm": (
        "g (float[n,3] x, float w, float b, float s) => (float[n,4] y) { r = Relu(x)\n t = Add(r, s)\n"
        " y = Gemm<transB=1, alpha=0.5, beta=2.0>(t, w, b) }",
        {"w": (4, 3), "b": (4,), "s": (3,)}, {"Relu": 1, "Gemm": 1},
    ),
    "constants in a row": (
        "g (float[n,3] x, float a, float b) => (float[n,3] y) { t = Add(x, a)\n u = Sub(b, t)\n"
        " v = Add(u, a)\n y = Relu(v) }",
        {"a": (3,), "b": ()}, None,
    ),
    "factor of a scaled sum": (
        "g (float[n,3] x, float a, float b) => (float[n,3] y) { t = Mul(x, a)\n u = Add(t, b)\n y = Mul(u, a) }",
        {"a": (3,), "b": (3,)}, {"Mul": 1, "Add": 1},
    ),
    "batch norm, factor": (
        "g (float[n,3,4] x, float a, float var, float s) => (float[n,3,4] y) { r = Relu(x)\n"
        " t = BatchNormalization(r, a, a, a, var)\n y = Mul(t, s) }",
        {"a": (3,), "var": (3,), "s": (3, 1)}, {"Relu": 1, "BatchNormalization": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "shapes", "expected"), FUSED.values(), ids=list(FUSED))
def test_fused(body: str, shapes: dict[str, tuple[int, ...]], expected: dict[str, int] | None) -> None:
    model = with_weights(body, shapes)
    result = optimize(model)
    if expected is not None:
        assert ops(result) == expected
    assert_same(model, result, tolerance=2e-6)


KEPT: dict[str, tuple[str, dict[str, tuple[int, ...]], str]] = {
    "weights that others read": (
        "g (float[n,3] x, float w, float s) => (float[n,4] y, float[n,4] z) { t = MatMul(x, w)\n y = Mul(t, s)\n"
        " r = Relu(x)\n z = MatMul(r, w) }", {"w": (3, 4), "s": (4,)}, "Mul",
    ),
    "a result that others read": (
        "g (float[n,3] x, float w, float s) => (float[n,4] y, float[n,4] z) { t = MatMul(x, w)\n"
        " y = Mul(t, s)\n z = Relu(t) }",
        {"w": (3, 4), "s": (4,)}, "Mul",
    ),
    "a factor that broadcasts the result": (
        "g (float[n,3] x, float w, float s) => (float[2,n,4] y) { t = MatMul(x, w)\n y = Mul(t, s) }",
        {"w": (3, 4), "s": (2, 1, 4)}, "Mul",
    ),
    "a factor by position": (
        "g (float[n,3,8] x, float w, float s) => (float[n,4,6] y) { t = Conv(x, w)\n y = Mul(t, s) }",
        {"w": (4, 3, 3), "s": (6,)}, "Mul",
    ),
    "one channel that broadcasts to many": (
        "g (float[n,3,8] x, float w, float s) => (float[n,4,6] y) { t = Conv(x, w)\n y = Mul(t, s) }",
        {"w": (1, 3, 3), "s": (4, 1)}, "Mul",
    ),
    "a shift after a matmul": (
        "g (float[n,5,3] x, float w, float s) => (float[n,5,4] y) { t = MatMul(x, w)\n y = Add(t, s) }",
        {"w": (3, 4), "s": (4,)}, "Add",
    ),
    "a shift before a conv that pads by itself": (
        "g (float[n,3,8] x, float w, float s) => (float[n,4,8] y) { r = Relu(x)\n t = Add(r, s)\n"
        " y = Conv<auto_pad=\"SAME_UPPER\">(t, w) }", {"w": (4, 3, 3), "s": ()}, "Add",
    ),
    "a shift by position before a conv": (
        "g (float[n,3,8] x, float w, float s) => (float[n,4,6] y) { r = Relu(x)\n t = Add(r, s)\n y = Conv(t, w) }",
        {"w": (4, 3, 3), "s": (8,)}, "Add",
    ),
    "a shift that a padded and another conv read": (
        "g (float[n,3,8] x, float w, float v, float s) => (float[n,4,8] y, float[n,4,6] z) { r = Relu(x)\n"
        " t = Add(r, s)\n y = Conv<pads=[1, 1]>(t, w)\n z = Conv(t, v) }",
        {"w": (4, 3, 3), "v": (4, 3, 3), "s": ()}, "Add",
    ),
    "a vector factor before a grouped conv": (
        "g (float[n,4,8] x, float w, float s) => (float[n,4,6] y) { t = Mul(x, s)\n y = Conv<group=2>(t, w) }",
        {"w": (4, 2, 3), "s": (4, 1)}, "Mul",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "shapes", "op"), KEPT.values(), ids=list(KEPT))
def test_kept(body: str, shapes: dict[str, tuple[int, ...]], op: str) -> None:
    model = with_weights(body, shapes)
    result = optimize(model)
    assert ops(result)[op] == 1
    assert_same(model, result)


def test_the_original_weights_are_not_changed() -> None:
    body, shapes, _ = FUSED["conv, batch norm"]
    model = with_weights(body, shapes)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    optimize(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_nothing_is_fused_across_dequantize_linear() -> None:
    model = parse(
        """g (float[n,2] x) => (float[n,2] y) {
            q = Constant<value=int8[2,2] {1, 2, 3, 4}>()
            s = Constant<value_float=0.5>()
            w = DequantizeLinear(q, s)
            t = MatMul(x, w)
            f = Constant<value_floats=[2.0, 3.0]>()
            y = Mul(t, f)
        }"""
    )
    result = optimize(model)
    assert ops(result) == {"DequantizeLinear": 1, "MatMul": 1, "Mul": 1}
    assert_same(model, result)


@pytest.mark.parametrize("shift", ["BatchNormalization(t, b, b, m, var)", "Mul(t, m)"])
def test_the_changed_value_takes_the_name_of_what_it_holds_now(shift: str) -> None:
    """`t` is gone: under its old name the convolution's result would be compared with what it was."""
    body = (
        "g (float[n,4,8] x, float w, float b, float m, float var) => (float[n,4,6] y) {"
        f" t = Conv(x, w)\n u = {shift}\n y = Relu(u) }}"
    )
    norm = {"w": (4, 4, 3), "b": (4,), "m": (4,) if "Batch" in shift else (4, 1), "var": (4,)}
    result = optimize(with_weights(body, norm))
    assert [[value.name for value in node.outputs] for node in result.graph] == [["u"], ["y"]]
