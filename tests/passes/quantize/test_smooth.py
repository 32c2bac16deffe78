"""SmoothQuant: the float model must not change, the activations must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.passes.quantize import InsertQDQ, Scheme, SmoothActivations
from tests.passes.quantize.models import (
    Array,
    build,
    decision,
    execute,
    min_max,
    node_named,
    normal,
    observe,
    ops,
    relative,
)

CHANNELS = 16
OUTLIERS = np.where(np.arange(CHANNELS) % 5 == 0, 30, 1).astype(np.float32)
X = {"x": normal(6, 4, CHANNELS, seed=7)}
LOSSLESS = 1e-5

WEIGHTS = {
    "gamma": OUTLIERS,
    "beta": normal(CHANNELS, seed=1),
    "w": normal(CHANNELS, 24, seed=2),
    "v": normal(CHANNELS, 8, seed=3),
    "square": normal(CHANNELS, CHANNELS, seed=4),
    "bias": normal(CHANNELS, seed=5),
}


def model_of(body: str, outputs: str = "float[A, B, C] y", x: str = "float[6, 4, 16] x") -> Any:
    used = {name: array for name, array in WEIGHTS.items() if any(w == name for w in _words(body))}
    return build(f"g ({x}) => ({outputs}) {{ {body} }}", used)


def _words(text: str) -> list[str]:
    return text.replace("(", " ").replace(")", " ").replace(",", " ").split()


def peaks(model: Any, name: str) -> Array:
    array = observe(model, X, [name])[name]
    found: Array = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
    return found


NORM = "[norm] h = LayerNormalization <axis = -1> (x, gamma, beta)"


@pytest.mark.parametrize(
    "body",
    [
        f"{NORM} [fc] y = MatMul (h, w)",
        "[norm] h = LayerNormalization <axis = -1> (x, gamma) [fc] y = MatMul (h, w)",
        "[norm] h = com.microsoft.SkipLayerNormalization (x, x, gamma, beta) [fc] y = MatMul (h, w)",
        "[gain] h = Mul (x, gamma) [fc] y = MatMul (h, w)",
        "[gain] a = Mul (gamma, x) [shift] h = Add (beta, a) [fc] y = MatMul (h, w)",
        "[first] h = MatMul (x, square) [fc] y = MatMul (h, w)",
        "[first] a = MatMul (x, square) [shift] b = Add (a, bias) h = Relu (b) [fc] y = MatMul (h, w)",
        "[first] a = MatMul (x, square) [gate] s = Sigmoid (x) h = Mul (s, a) [fc] y = MatMul (h, w)",
    ],
)
def test_lossless_and_smoother(body: str) -> None:
    model = model_of(body)
    before, peaks_before = execute(model, X)[0], peaks(model, "h")
    passed = SmoothActivations({"h": peaks_before})
    nodes = len(ops(model))
    assert passed(model).modified
    assert len(ops(model)) == nodes
    assert relative(execute(model, X)[0], before) < LOSSLESS
    assert decision(passed.decisions, "fc")[0]
    # With alpha 1/2 both sides end at sqrt(max|x| max|W|), equation 4.
    weights = np.abs(WEIGHTS["w"]).max(axis=1)
    np.testing.assert_allclose(peaks(model, "h"), np.sqrt(peaks_before * weights), rtol=1e-3)
    np.testing.assert_allclose(passed.statistics["h"], peaks(model, "h"), rtol=1e-3)


def test_gemm_layers_in_both_orientations() -> None:
    body = """[first] h = Gemm <transB = 1> (x, square, bias)
        [a] y = Gemm (h, w)
        [b] z = Gemm <transB = 1> (h, t)"""
    weights = {name: WEIGHTS[name] for name in ("square", "bias", "w")} | {"t": normal(5, CHANNELS)}
    model = build(f"g (float[6, 16] x) => (float[A, B] y, float[C, D] z) {{ {body} }}", weights)
    feed = {"x": normal(6, CHANNELS) * OUTLIERS}
    before = execute(model, feed)
    passed = SmoothActivations({"h": np.abs(observe(model, feed, ["h"])["h"]).max(axis=0)}, alpha=0.8)
    assert passed(model).modified
    for actual, expected in zip(execute(model, feed), before, strict=True):
        assert relative(actual, expected) < LOSSLESS
    assert [d.quantized for d in passed.decisions] == [True, True]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_alpha_shares_the_difficulty(alpha: float) -> None:
    model = model_of(f"{NORM} [fc] y = MatMul (h, w)")
    before, first = execute(model, X)[0], peaks(model, "h")
    SmoothActivations({"h": first}, alpha)(model)
    assert relative(execute(model, X)[0], before) < LOSSLESS
    weights = np.abs(WEIGHTS["w"]).max(axis=1)
    np.testing.assert_allclose(peaks(model, "h"), first ** (1 - alpha) * weights ** (1 - alpha), rtol=1e-3)


RESIDUAL = f"{NORM} [fc] a = MatMul (h, square) [residual] y = Add (a, h)"


def test_residual_reader_refuses_without_a_mul() -> None:
    model = model_of(RESIDUAL)
    passed = SmoothActivations({"h": peaks(model, "h")})
    assert not passed(model).modified
    assert decision(passed.decisions, "fc") == (False, "Add residual reads its input too")


def test_residual_reader_keeps_its_tensor_with_a_mul() -> None:
    model = model_of(RESIDUAL)
    before, first = execute(model, X)[0], peaks(model, "h")
    passed = SmoothActivations({"h": first}, allow_mul=True)
    assert passed(model).modified
    assert relative(execute(model, X)[0], before) < LOSSLESS
    np.testing.assert_array_equal(peaks(model, "h"), first)
    smoothed = node_named(model, "fc").inputs[0]
    assert smoothed is not None and smoothed.name is not None
    np.testing.assert_allclose(passed.statistics[smoothed.name], peaks(model, smoothed.name), rtol=1e-5)
    np.testing.assert_array_equal(passed.statistics["h"], first)
    assert node_named(model, "residual").inputs[1] is node_named(model, "norm").outputs[0]


def test_graph_input_gets_a_mul_at_the_front() -> None:
    model = model_of("[fc] y = MatMul (x, w)")
    before = execute(model, X)[0]
    passed = SmoothActivations({"x": peaks(model, "x")}, allow_mul=True)
    passed(model)
    assert ops(model) == ["Mul", "MatMul"]
    assert relative(execute(model, X)[0], before) < LOSSLESS


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        ("[fc] y = MatMul (x, w)", None, "its input is an input of the model"),
        ("h = Softmax (x) [fc] y = MatMul (h, w)", None, "Softmax cannot take a scale up"),
        ("h = com.microsoft.Gelu (x) [fc] y = MatMul (h, w)", None, "Gelu cannot take a scale up"),
        ("h = Add (x, x) [fc] y = MatMul (h, w)", None, "Add of two activations cannot take a scale up"),
        ("h = Mul (x, x) [fc] y = MatMul (h, w)", None, "no factor of Mul can take a scale up"),
        (
            f"{NORM} [fc] y = MatMul (h, w)",
            "float[A, B, C] y, float[D, E, F] h",
            "its input is an output of the model",
        ),
        (
            "a = MatMul (x, square) h = Relu (a) [fc] y = MatMul (h, w) z = Neg (a)",
            "float[A, B, C] y, float[D, E, F] z",
            "a value before it is read elsewhere too",
        ),
        (
            "s = Abs (beta) h = LayerNormalization (x, gamma, s) [fc] y = MatMul (h, w)",
            None,
            "the scale or bias of LayerNormalization is not a constant vector",
        ),
        (
            "s = Abs (square) h = MatMul (x, s) [fc] y = MatMul (h, w)",
            None,
            "MatMul before it has no constant matrix",
        ),
    ],
)
def test_refusals(body: str, outputs: str | None, reason: str) -> None:
    model = model_of(body, outputs or "float[A, B, C] y")
    name = "h" if "(h, w)" in body else "x"
    passed = SmoothActivations({name: OUTLIERS})
    assert not passed(model).modified
    assert decision(passed.decisions, "fc") == (False, reason)


def test_constant_across_other_axes_refuses() -> None:
    body = "g (float[6, 4, 16] x) => (float[A, B, C] y) { h = Mul (x, c) [fc] y = MatMul (h, w) }"
    passed = SmoothActivations({"h": OUTLIERS})
    assert not passed(build(body, {"c": normal(4, 1), "w": WEIGHTS["w"]})).modified
    assert decision(passed.decisions, "fc")[1] == "the constant of Mul does not lie along the channels"


@pytest.mark.parametrize(
    ("first", "weights", "reason"),
    [
        ("h = Gemm (x, square, d)", {}, "the bias of Gemm before it is not constant"),
    ],
)
def test_gemm_with_a_bias_that_is_not_constant(first: str, weights: dict[str, Array], reason: str) -> None:
    text = f"g (float[6, 16] x, float[16] d) => (float[A, B] y) {{ {first} [fc] y = Gemm (h, w) }}"
    model = build(text, {"square": WEIGHTS["square"], "w": WEIGHTS["w"]} | weights)
    passed = SmoothActivations({"h": OUTLIERS})
    assert not passed(model).modified
    assert decision(passed.decisions, "fc") == (False, reason)


def test_shared_weight_and_shared_gamma_are_split() -> None:
    body = """[n1] h = LayerNormalization <axis = -1> (x, gamma, beta)
        [fc] a = MatMul (h, square)
        b = Tanh (a)
        [n2] c = LayerNormalization <axis = -1> (b, gamma, beta)
        d = Tanh (c)
        [other] y = MatMul (d, square)"""
    model = model_of(body)
    before = execute(model, X)[0]
    SmoothActivations({"h": peaks(model, "h")})(model)
    assert relative(execute(model, X)[0], before) < LOSSLESS
    np.testing.assert_array_equal(model.graph.initializers["gamma"].const_value.numpy(), OUTLIERS)


def test_dead_channels_stay() -> None:
    model = model_of(f"{NORM} [fc] y = MatMul (h, w)")
    statistics = peaks(model, "h")
    statistics[3] = 0
    SmoothActivations({"h": statistics})(model)
    gamma = model.graph.initializers["gamma"].const_value
    assert gamma is not None and gamma.numpy()[3] == OUTLIERS[3]


def test_second_run_changes_nothing() -> None:
    model = model_of(f"{NORM} [fc] y = MatMul (h, w)")
    first = SmoothActivations({"h": peaks(model, "h")})
    first(model)
    second = SmoothActivations(first.statistics)
    assert not second(model).modified
    assert decision(second.decisions, "fc") == (False, "its input is smooth already")


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"nowhere": OUTLIERS}, "does not have"),
        ({"h": OUTLIERS[:5]}, "have 5 channels, its readers 16"),
        ({"h": np.full(CHANNELS, np.nan)}, "finite"),
        ({"h": -OUTLIERS}, "finite"),
        ({"h": np.ones((2, 8))}, "per channel"),
    ],
)
def test_wrong_statistics(statistics: dict[str, Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmoothActivations(statistics)(model_of(f"{NORM} [fc] y = MatMul (h, w)"))


def test_wrong_alpha() -> None:
    with pytest.raises(ValueError, match="alpha"):
        SmoothActivations({}, alpha=1.5)


def test_tensors_that_no_linear_layer_reads_are_passed_over() -> None:
    passed = SmoothActivations({"x": OUTLIERS})
    assert not passed(model_of(f"{NORM} [fc] y = MatMul (h, w)")).modified
    assert passed.decisions == []


def test_int8_error_shrinks() -> None:
    model = model_of(f"{NORM} [fc] y = MatMul (h, w)")
    expected = execute(model, X)[0]
    errors = []
    for smooth in (False, True):
        if smooth:
            SmoothActivations({"h": peaks(model, "h")})(model)
        quantized = model.clone()
        InsertQDQ(min_max(model, Scheme(), X), Scheme())(quantized)
        errors.append(relative(execute(quantized, X)[0], expected))
    assert errors[1] < 0.8 * errors[0]
