"""LowerLinears: what goes into a QLinear, and what keeps a layer out."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.passes.lower.transformer import LowerLinears, TakeQuantizers
from tests.passes.lower_transformer.graphs import K, N, applied, graph, ops, ran, reasons

READ = "q = QuantizeLinear (x, x_s, x_z) d = DequantizeLinear (q, x_s, x_z)"
WEIGHT = "v = DequantizeLinear <axis = 1> (w, w_s, w_z)"
FEED = {"x": np.random.default_rng(0).normal(size=(2, 3, K)).astype(np.float32)}
RESIDUAL = {"r": np.random.default_rng(1).normal(size=(2, 3, N)).astype(np.float32)}

LAYERS = {
    "product": ("y = MatMul (d, v)", {}),
    "bias": ("p = MatMul (d, v) y = Add (bias, p)", {}),
    "bias as Sum": ("p = MatMul (d, v) y = Sum (p, bias)", {}),
    "row": ("p = MatMul (d, v) y = Add (p, row)", {}),
    "relu": ("p = MatMul (d, v) a = Add (p, bias) y = Relu (a)", {"activation": "relu"}),
    "gelu": ("p = MatMul (d, v) a = Add (p, bias) y = Gelu (a)", {"activation": "gelu"}),
    "gelu by tanh": ('p = MatMul (d, v) y = Gelu <approximate = "tanh"> (p)', {"activation": "gelu_tanh"}),
    "silu": ("p = MatMul (d, v) g = Sigmoid (p) y = Mul (p, g)", {"activation": "silu"}),
    "silu, one node": ("p = MatMul (d, v) y = com.microsoft.QuickGelu <alpha = 1.0> (p)", {"activation": "silu"}),
    "hardswish": ("p = MatMul (d, v) y = HardSwish (p)", {"activation": "hardswish"}),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rounded", [False, True])
def test_a_layer_and_its_activation_are_one_node(name: str, rounded: bool) -> None:
    body, attributes = LAYERS[name]
    if rounded:
        body = body.replace("y =", "f =") + " z = QuantizeLinear (f, y_s, y_z) y = DequantizeLinear (z, y_s, y_z)"
    made = graph(f"float[2, 3, {K}] x", f"float[2, 3, {N}] y", f"{READ} {WEIGHT} {body}")
    step = LowerLinears()
    done = applied(step, made)
    assert ops(done) == ["QLinear"] and not reasons(step)
    node = next(n for n in done.graph if n.op_type == "QLinear")
    assert {key: value.value for key, value in node.attributes.items()} == attributes
    assert bool(node.outputs[0].name) == rounded and len(done.graph) == (3 if rounded else 2)
    (wanted,), (got,) = ran(made, FEED), ran(done, FEED)
    # a step of y where the sums differ in the last bits
    np.testing.assert_allclose(got, wanted, atol=0.0501 if rounded else 1e-5)


def test_gemm_with_either_weight_and_a_dequantized_bias() -> None:
    for layer in (
        "v = DequantizeLinear <axis = 0> (w_t, w_s, w_z) y = Gemm <transB = 1> (d, v, c)",
        "v = DequantizeLinear <axis = 1> (w, w_s, w_z) y = Gemm (d, v, c)",
        "v = DequantizeLinear (w, one_s, s_z) y = Gemm (d, v, bias)",
    ):
        bias = "c = DequantizeLinear <axis = 0> (b, b_s)" if ", c)" in layer else ""
        made = graph(f"float[4, {K}] x", f"float[4, {N}] y", f"{READ} {bias} {layer}")
        done = applied(LowerLinears(), made)
        assert ops(done) == ["QLinear"]
        feed = {"x": np.random.default_rng(0).normal(size=(4, K)).astype(np.float32)}
        np.testing.assert_allclose(ran(done, feed)[0], ran(made, feed)[0], atol=1e-5)


REFUSED = {
    "its input is not uint8 with one scale": (
        "q = QuantizeLinear (x, x_s, s_z) d = DequantizeLinear (q, x_s, s_z)", WEIGHT, "y = MatMul (d, v)",
    ),
    "its weight has zero points": (READ, WEIGHT.replace("w_z", "odd_z"), "y = MatMul (d, v)"),
    "its weight's scales are not one for each output": (
        READ, "v = DequantizeLinear <axis = 0> (w, k_s, k_z)", "y = MatMul (d, v)",
    ),
    "its weight is not a constant int8 matrix": (READ, "v = DequantizeLinear (b, one_s)", "y = MatMul (d, v)"),
    "Gemm with alpha or beta other than 1": (READ, WEIGHT, "y = Gemm <alpha = 2.0> (d, v)"),
    "its bias is not a constant vector": (READ, WEIGHT, "y = Gemm (d, v, full)"),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_layers_that_stay(reason: str) -> None:
    rank = "4" if "Gemm" in REFUSED[reason][2] else "2, 3"
    out = "4" if "Gemm" in REFUSED[reason][2] else "2, 3"
    shape = f"float[{out}] y" if "b, one_s" in REFUSED[reason][1] else f"float[{out}, {N}] y"
    made = graph(f"float[{rank}, {K}] x", shape, " ".join(REFUSED[reason]))
    step = LowerLinears()
    done = applied(step, made)
    assert reasons(step) == [reason] and ops(done) == []


def test_gemm_of_a_transposed_input_stays() -> None:
    made = graph(f"float[{K}, 4] x", f"float[4, {N}] y", f"{READ} {WEIGHT} y = Gemm <transA = 1> (d, v)")
    step = LowerLinears()
    assert ops(applied(step, made)) == [] and reasons(step) == ["Gemm with transA"]


def test_a_layer_in_float_is_none_of_its_business() -> None:
    made = graph(
        f"float[4, {K}] x", f"float[4, {N}] y", "v = DequantizeLinear <axis = 1> (w, w_s, w_z) y = MatMul (x, v)"
    )
    step = LowerLinears()
    assert not step(made).modified and not step.decisions


def test_a_residual_of_the_same_shape_goes_in() -> None:
    body = f"{READ} {WEIGHT} p = MatMul (d, v) y = Add (r, p)"
    made = graph(f"float[B, S, {K}] x, float[B, S, {N}] r", f"float[B, S, {N}] y", body)
    done = applied(LowerLinears(), made)
    assert len(done.graph) == 2 and ops(done) == ["QLinear"]
    np.testing.assert_allclose(ran(done, FEED | RESIDUAL)[0], ran(made, FEED | RESIDUAL)[0], atol=1e-5)


@pytest.mark.parametrize("shape", [f"1, S, {N}", f"S, {N}", f"B, T, {N}", "B, S, 1"])
def test_a_residual_that_may_have_another_shape_stays_outside(shape: str) -> None:
    body = f"{READ} {WEIGHT} p = MatMul (d, v) y = Add (p, r)"
    made = graph(f"float[B, S, {K}] x, float[{shape}] r", f"float[B, S, {N}] y", body)
    done = applied(LowerLinears(), made)
    assert [n.op_type for n in done.graph] == ["QuantizeLinear", "QLinear", "Add"]


def test_what_others_read_too_is_not_swallowed() -> None:
    made = graph(
        f"float[2, 3, {K}] x", f"float[2, 3, {N}] y, float[2, 3, {N}] a",
        f"{READ} {WEIGHT} p = MatMul (d, v) a = Add (p, bias) y = Relu (a)",
    )  # fmt: skip
    done = applied(LowerLinears(), made)
    assert [n.op_type for n in done.graph] == ["QuantizeLinear", "QLinear", "Relu"]
    for got, wanted in zip(ran(done, FEED), ran(made, FEED), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_rounding_of_the_input_goes_in_only_where_nobody_else_reads_it() -> None:
    body = f"{READ} {WEIGHT} y = MatMul (d, v)"
    alone = graph(f"float[2, 3, {K}] x", f"float[2, 3, {N}] y", body)
    shared = graph(f"float[2, 3, {K}] x", f"float[2, 3, {N}] y, float[2, 3, {N}] z", f"{body} z = MatMul (d, v)")
    for made, types in ((alone, ["QLinear"]), (shared, ["QuantizeLinear", "QLinear", "QLinear"])):
        LowerLinears()(made)
        done = applied(TakeQuantizers(), made)
        assert [n.op_type for n in done.graph] == types


def test_movements_of_rows_around_a_layer_that_undo_each_other_go() -> None:
    body = f"""q = QuantizeLinear (x, x_s, x_z) t = Transpose <perm = [1, 0, 2]> (q) f = Reshape (t, flat_rows)
        e = DequantizeLinear (f, x_s, x_z)
        {WEIGHT} p = Gemm (e, v, bias)
        shape = Shape (t) front = Slice (shape, i0, two) back = Concat <axis = 0> (front, last)
        o = Reshape (p, back) y = Transpose <perm = [1, 0, 2]> (o)"""
    made = graph(f"float[B, S, {K}] x", f"float[B, S, {N}] y", body)
    done = applied(LowerLinears(), made)
    assert [n.op_type for n in done.graph] == ["QuantizeLinear", "QLinear"]
    np.testing.assert_allclose(ran(done, FEED)[0], ran(made, FEED)[0], atol=1e-5)
    kept = graph(f"float[B, S, {K}] x", f"float[S, B, {N}] o", body.rpartition(" y =")[0])
    assert "Transpose" in [n.op_type for n in applied(LowerLinears(), kept).graph]  # nothing puts the rows back
