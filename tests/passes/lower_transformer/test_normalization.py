"""LowerNormalizations: the sums, linear layers and roundings that go in, and what keeps a normalization out."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.passes.lower.transformer import LowerNormalizations
from tests.passes.lower_transformer.graphs import K, applied, constants, graph, names, ops, ran, reasons

NORM = "n = LayerNormalization <axis = -1> (x, gamma, beta)"
OUT = "q = QuantizeLinear (n, y_s, x_z) y = DequantizeLinear (q, y_s, x_z)"
LAYER = """a = QuantizeLinear (z, x_s, x_z) d = DequantizeLinear (a, x_s, x_z)
    v = DequantizeLinear <axis = 1> (square, k_s, k_z) l = MatMul (d, v) x = Add (l, wide)"""
RNG = np.random.default_rng(0)
FEED = {name: RNG.normal(size=(2, 3, K)).astype(np.float32) for name in ("x", "r", "z")}
SHAPE = f"float[B, S, {K}]"


def test_a_rounded_normalization_without_a_sum() -> None:
    made = graph(f"{SHAPE} x", f"{SHAPE} y", f"{NORM} {OUT}")
    done = applied(LowerNormalizations(), made)
    assert [n.op_type for n in done.graph] == ["QLayerNorm", "DequantizeLinear"]
    feed = {"x": FEED["x"]}
    np.testing.assert_allclose(ran(done, feed)[0], ran(made, feed)[0], atol=0.0501)


@pytest.mark.parametrize("add", ["Add", "Sum"])
def test_a_sum_that_is_read_on_comes_out_too(add: str) -> None:
    made = graph(
        f"{SHAPE} x, {SHAPE} r", f"{SHAPE} y, {SHAPE} n, {SHAPE} w",
        f"t = {add} (x, r) {NORM.replace('(x', '(t')} {OUT} w = Relu (t)",
    )  # fmt: skip
    done = applied(LowerNormalizations(), made)
    assert ops(done) == ["QLayerNorm"] and len(done.graph) == 3
    node = next(n for n in done.graph if n.op_type == "QLayerNorm")
    assert [bool(out.name) for out in node.outputs] == [True, True, False, False, True]
    feed = {name: FEED[name] for name in "xr"}
    (y, n, w), wanted = ran(done, feed), ran(made, feed)
    np.testing.assert_allclose(y, wanted[0], atol=0.0501)
    np.testing.assert_allclose(n, wanted[1], atol=1e-5)
    np.testing.assert_allclose(w, wanted[2], atol=1e-5)


@pytest.mark.parametrize("order", ["(x, r)", "(r, x)"])
def test_a_linear_layer_before_the_sum_goes_in(order: str) -> None:
    made = graph(f"{SHAPE} z, {SHAPE} r", f"{SHAPE} n", f"{LAYER} t = Add {order} {NORM.replace('(x', '(t')}")
    done = applied(LowerNormalizations(), made)
    assert [n.op_type for n in done.graph] == ["QuantizeLinear", "QLinearLayerNorm"]
    feed = {name: FEED[name] for name in "zr"}
    np.testing.assert_allclose(ran(done, feed)[0], ran(made, feed)[0], atol=1e-4)


def test_a_linear_layer_that_others_read_stays_apart() -> None:
    made = graph(f"{SHAPE} z, {SHAPE} r", f"{SHAPE} n, {SHAPE} x", f"{LAYER} t = Add (x, r) {NORM.replace('(x', '(t')}")
    assert ops(applied(LowerNormalizations(), made)) == ["QLayerNorm"]


@pytest.mark.parametrize(("product", "expected"), [("s = Mul (smooth, n)", -1), ("s = Div (n, smooth)", 1)])
def test_smoothing_becomes_a_scale_for_each_channel(product: str, expected: int) -> None:
    made = graph(f"{SHAPE} x", f"{SHAPE} y, {SHAPE} n", f"{NORM} {product} {OUT.replace('(n', '(s')}")
    done = applied(LowerNormalizations(), made)
    assert [n.op_type for n in done.graph] == ["QLayerNorm", "DequantizeLinear"]
    scale = done.graph[0].inputs[4]
    assert scale is not None and scale.const_value is not None
    np.testing.assert_allclose(scale.const_value.numpy(), 0.05 * constants()["smooth"] ** expected, rtol=1e-6)
    feed = {"x": FEED["x"]}
    np.testing.assert_allclose(ran(done, feed)[0], ran(made, feed)[0], atol=0.0501)
    np.testing.assert_allclose(ran(done, feed)[1], ran(made, feed)[1], atol=1e-5)


def test_factors_that_are_not_positive_stay_a_product() -> None:
    made = graph(f"{SHAPE} x", f"{SHAPE} y", f"{NORM} s = Mul (n, mixed) {OUT.replace('(n', '(s')}")
    assert "Mul" in [n.op_type for n in applied(LowerNormalizations(), made).graph]


def test_of_two_roundings_one_goes_in() -> None:
    second = "p = QuantizeLinear (n, x_s, x_z) w = DequantizeLinear (p, x_s, x_z)"
    made = graph(f"{SHAPE} x", f"{SHAPE} y, {SHAPE} w", f"{NORM} {OUT} {second}")
    done = applied(LowerNormalizations(), made)
    assert sorted(n.op_type for n in done.graph) == ["DequantizeLinear"] * 2 + ["QLayerNorm", "QuantizeLinear"]
    feed = {"x": FEED["x"]}
    for got, wanted in zip(ran(done, feed), ran(made, feed), strict=True):
        np.testing.assert_allclose(got, wanted, atol=0.0501)


REFUSED = {
    "it neither follows a sum nor is quantized": NORM,
    "it is not over the last axis": f"m = LayerNormalization <axis = 1> (x, full_g) n = Identity (m) {OUT}",
    "its mean or deviation is read": f"n, mean = LayerNormalization <axis = -1> (x, gamma, beta) {OUT}",
    "its scale or bias is not a constant vector": f"n = LayerNormalization <axis = -1> (x, given) {OUT}",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_normalizations_that_stay(reason: str) -> None:
    inputs, outputs = f"float[2, 3, {K}] x", f"float[2, 3, {K}] n"
    if "full_g" in REFUSED[reason]:
        inputs += f", float[3, {K}] full_g"
    if "given" in REFUSED[reason]:
        inputs += f", float[{K}] given"
    if "mean" in REFUSED[reason] and "mean =" in REFUSED[reason]:
        outputs += ", float[2, 3, 1] mean"
    step = LowerNormalizations()
    done = applied(step, graph(inputs, outputs, REFUSED[reason]))
    assert reasons(step) == [reason] and ops(done) == []


def test_a_sum_of_tensors_of_different_shapes_stays_outside() -> None:
    made = graph(f"{SHAPE} x, float[1, S, {K}] r", f"{SHAPE} y", f"t = Add (x, r) {NORM.replace('(x', '(t')} {OUT}")
    done = applied(LowerNormalizations(), made)
    assert [n.op_type for n in done.graph] == ["Add", "QLayerNorm", "DequantizeLinear"]


def test_names_of_results_are_kept() -> None:
    made = graph(f"{SHAPE} x, {SHAPE} r", f"{SHAPE} y, {SHAPE} n", f"t = Add (x, r) {NORM.replace('(x', '(t')} {OUT}")
    done = applied(LowerNormalizations(), made)
    assert names(done.graph[0].outputs[:2]) == ["n", "q"]
