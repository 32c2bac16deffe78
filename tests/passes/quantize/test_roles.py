"""Which operators can be quantized: every refusal is tripped."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.quantize import Scheme, plan_quantization, roles
from tests.passes.quantize.models import Array, build, decision, node_named, normal

W = normal(4, 4)


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        (
            "g (float[1, 4, 5] x) => (float[1, 4, P] y) { [n] y = ConvTranspose (x, w) }",
            {"w": normal(4, 4, 3)},
            "ONNX Runtime has no int8 transposed convolution",
        ),
        (
            "g (float[3, 1, 4] x) => (float[3, 1, 1, 4] y) { [n] y = LSTM <hidden_size = 4> (x, w, r) }",
            {"w": normal(1, 16, 4), "r": normal(1, 16, 4)},
            "ONNX Runtime has no int8 LSTM for QDQ graphs",
        ),
        (
            "g (float[3, 1, 4] x) => (float[3, 1, 1, 4] y) { [n] y = GRU <hidden_size = 4> (x, w, r) }",
            {"w": normal(1, 12, 4), "r": normal(1, 12, 4)},
            "ONNX Runtime has no int8 GRU",
        ),
        (
            "g (float[3, 1, 4] x) => (float[3, 1, 1, 4] y) { [n] y = RNN <hidden_size = 4> (x, w, r) }",
            {"w": normal(1, 4, 4), "r": normal(1, 4, 4)},
            "ONNX Runtime has no int8 RNN",
        ),
        (
            'g (float[M, 4] x) => (float[M, 4] y) { [n] y = Einsum <equation = "ij,jk->ik"> (x, w) }',
            {"w": W},
            "ONNX Runtime has no int8 Einsum",
        ),
        (
            "g (float16[M, 4] x) => (float16[M, 4] y) { [n] y = MatMul (x, w) }",
            {"w": W.astype(np.float16)},
            "its activations are not float32",
        ),
        (
            "g (float[M, 4] x, float[4, 4] w) => (float[M, 4] y) { [n] y = MatMul (x, w) }",
            {},
            "both its factors are activations",
        ),
        (
            "g (float[4, M] x) => (float[4, M] y) { [n] y = MatMul (w, x) }",
            {"w": W},
            "its weight is not a constant second input",
        ),
        (
            "g (float[1, 4, 5, 5] x, float[4, 4, 3, 3] w) => (float[1, 4, P, Q] y) { [n] y = Conv (x, w) }",
            {},
            "its weight is not a constant second input",
        ),
        (
            "g (float[2, M, 4] x) => (float[2, M, 4] y) { [n] y = MatMul (x, w) }",
            {"w": normal(2, 4, 4)},
            "its weight is not a matrix",
        ),
        (
            "g (float[M, 0] x) => (float[M, 4] y) { [n] y = MatMul (x, w) }",
            {"w": normal(0, 4)},
            "its weight is empty",
        ),
        (
            "g (float[M, 4] x, float[4] b) => (float[M, 4] y) { [n] y = Gemm (x, w, b) }",
            {"w": W},
            "its bias is not constant",
        ),
        (
            "g (float[4, M] x) => (float[M, 4] y) { [n] y = Gemm <transA = 1> (x, w) }",
            {"w": W},
            "Gemm with transA",
        ),
        (
            "g (float[M, 4] x) => (float[M, 4] y) { [n] y = Gemm <alpha = 2.0> (x, w) }",
            {"w": W},
            "Gemm with alpha or beta other than 1",
        ),
        (
            "g (float[M, 4] x) => (float[M, 4] y) { [n] y = Gemm <beta = 2.0> (x, w, b) }",
            {"w": W, "b": W[0]},
            "Gemm with alpha or beta other than 1",
        ),
        (
            "g (float[M, 4] x) => (float[M, 4] y) { [n] y = Gemm (x, w, b) }",
            {"w": W, "b": W[:2]},
            "Gemm whose bias is not a vector",
        ),
    ],
)
def test_refusals(text: str, weights: dict[str, Array], reason: str) -> None:
    plan = plan_quantization(build(text, weights, check=False), Scheme())
    assert decision(plan.decisions, "n") == (False, reason)
    assert not plan.compute and not plan.tensors


def test_attention_stays_float() -> None:
    text = """g (float[1, 2, 4] q, float[1, 2, 4] k, float[1, 2, 4] v) => (float[A, B, C] y) {
        [n] y = Attention (q, k, v)
    }"""
    plan = plan_quantization(build(text, check=False), Scheme())
    assert decision(plan.decisions, "n") == (False, "attention is kept float")


def test_weight_that_is_not_float32() -> None:
    model = build("g (float[M, 4] x) => (float[M, 4] y) { [n] y = MatMul (x, w) }", {"w": W})
    weight = model.graph.initializers["w"]
    weight.const_value = ir.tensor(W.astype(np.float64))
    plan = plan_quantization(model, Scheme())
    assert decision(plan.decisions, "n") == (False, "its weight is not float32")


def test_weight_that_is_also_an_input_is_no_constant() -> None:
    text = "g (float[M, 4] x, float[4, 4] w) => (float[M, 4] y) { [n] y = MatMul (x, w) }"
    plan = plan_quantization(build(text, {"w": W}), Scheme())
    assert not decision(plan.decisions, "n")[0]


def test_scheme_refusals() -> None:
    model = build("g (float[M, 4] x) => (float[M, 4] y) { [n] y = MatMul (x, w) }", {"w": W})
    assert decision(plan_quantization(model, Scheme(exclude=frozenset({"n"}))).decisions, "n") == (
        False,
        "excluded",
    )
    plan = plan_quantization(model, Scheme(minimum_weights=17))
    assert decision(plan.decisions, "n") == (False, "it has fewer than 17 weights")
    assert decision(plan_quantization(model, Scheme(minimum_weights=16)).decisions, "n") == (True, "int8")


def test_subgraph_nodes_are_reported() -> None:
    text = """g (float[M, 4] x, bool c) => (float[M, 4] y) {
        y = If (c) <
            then_branch = t () => (float[M, 4] a) { [inner] a = MatMul (x, w) },
            else_branch = e () => (float[M, 4] b) { b = Identity (x) }
        >
    }"""
    plan = plan_quantization(build(text, {"w": W}, check=False), Scheme())
    assert decision(plan.decisions, "inner") == (False, "it lies in a subgraph")


def test_products_of_activations_on_request() -> None:
    model = build("g (float[M, 4] x, float[4, N] z) => (float[M, N] y) { [n] y = MatMul (x, z) }")
    plan = plan_quantization(model, Scheme(activation_matmuls=True))
    assert decision(plan.decisions, "n")[0]
    assert set(plan.tensors) == {"x", "z"}


@pytest.mark.parametrize(
    ("op", "bounds"),
    [
        ("Relu (x)", (0.0, math.inf)),
        ("HardSwish (x)", (-3.0, math.inf)),
        ("Sigmoid (x)", (-10.0, 10.0)),
        ("Tanh (x)", (-6.0, 6.0)),
        ("HardSigmoid <alpha = 0.25, beta = 0.5> (x)", (-2.0, 2.0)),
        ("Exp (x)", None),
    ],
)
def test_saturation_is_where_the_function_is_flat(op: str, bounds: tuple[float, float] | None) -> None:
    model = build(f"g (float[N] x) => (float[N] y) {{ [n] y = {op} }}")
    assert roles.saturation(node_named(model, "n")) == bounds
    if bounds is None:
        return
    from tests.passes.quantize.models import execute

    outside = np.array([bounds[0] - 5, bounds[0], bounds[1] if math.isfinite(bounds[1]) else 0, 50], np.float32)
    values = execute(model, {"x": outside})[0]
    assert values[0] == pytest.approx(values[1], abs=5e-5)
    if math.isfinite(bounds[1]):
        assert values[3] == pytest.approx(values[2], abs=5e-5)


@pytest.mark.parametrize(
    ("clip", "fused"),
    [
        ("Clip (a, zero, six)", True),
        ("Clip (a, one, six)", False),
        ("Clip (a, zero)", False),
        ("Clip (a, zero, minus)", False),
        ("Relu (a)", True),
        ("Sigmoid (a)", False),
    ],
)
def test_what_runs_inside_a_convolution(clip: str, fused: bool) -> None:
    weights = {
        "w": normal(4, 4, 1, 1),
        "zero": np.float32(0),
        "six": np.float32(6),
        "one": np.float32(1),
        "minus": np.float32(-1),
    }
    used = {name: array for name, array in weights.items() if name in ("w",) or f" {name}" in clip}
    text = f"g (float[1, 4, 5, 5] x) => (float[A, B, C, D] z) {{ [n] a = Conv (x, w) y = {clip} z = Neg (y) }}"
    model = build(text, used)  # type: ignore[arg-type]
    assert roles.fused_output(node_named(model, "n")).name == ("y" if fused else "a")
