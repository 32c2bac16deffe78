"""Bias correction: the mean error goes, in float and in QDQ models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.passes.quantize import CorrectBias, InsertQDQ, Scheme, expected_weight_error
from onnxcompress.passes.quantize.arithmetic import dequantize_weight, quantize_weight, weight_scales
from tests.passes.quantize.models import (
    Array,
    build,
    decision,
    execute,
    min_max,
    node_named,
    normal,
    ops,
    reference,
    relative,
)

CONV = "g (float[N, 4, 9, 9] x) => (float[N, C, P, Q] y) {{ [layer] y = Conv ({inputs}) }}"
GEMM = "g (float[M, 16] x) => (float[M, N] y) {{ [layer] y = Gemm ({inputs}) }}"
MATMUL = "g (float[M, 16] x) => (float[M, N] y) {{ [layer] {inputs} }}"
IMAGE = {"x": np.abs(normal(3, 4, 9, 9, seed=1))}
ROWS = {"x": np.abs(normal(40, 16, seed=2))}
CONV_W, GEMM_W = normal(8, 4, 3, 3), normal(16, 8)
BIAS = normal(8, seed=3)
ERROR = np.linspace(-1, 1, 8)


def mean(array: Array) -> Array:
    """Per output channel."""
    result: Array = array.mean(axis=(0, 2, 3) if array.ndim == 4 else 0, dtype=np.float64)
    return result


@pytest.mark.parametrize(
    ("text", "weights", "feed"),
    [
        (CONV.format(inputs="x, w, b"), {"w": CONV_W, "b": BIAS}, IMAGE),
        (CONV.format(inputs="x, w"), {"w": CONV_W}, IMAGE),
        (GEMM.format(inputs="x, w, b"), {"w": GEMM_W, "b": BIAS}, ROWS),
        (GEMM.format(inputs="x, w, b"), {"w": GEMM_W, "b": BIAS[:1]}, ROWS),
        (GEMM.format(inputs="x, w"), {"w": GEMM_W}, ROWS),
        (MATMUL.format(inputs="y = MatMul (x, w)"), {"w": GEMM_W}, ROWS),
        (MATMUL.format(inputs="a = MatMul (x, w) y = Add (b, a)"), {"w": GEMM_W, "b": BIAS}, ROWS),
        (MATMUL.format(inputs="a = MatMul (x, w) y = Add (a, b)"), {"w": GEMM_W, "b": BIAS[0]}, ROWS),
    ],
)
def test_float_outputs_move_by_the_error(text: str, weights: dict[str, Array], feed: dict[str, Array]) -> None:
    model = build(text, weights)
    before = execute(model, feed)[0]
    passed = CorrectBias({"layer": ERROR})
    assert passed(model).modified
    shape = (1, -1, 1, 1) if before.ndim == 4 else (-1,)
    expected = before - ERROR.reshape(shape)
    np.testing.assert_allclose(execute(model, feed)[0], expected, atol=1e-5)
    np.testing.assert_allclose(reference(model, feed)[0], expected, atol=1e-5)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert decision(passed.decisions, "layer")[0]


def quantized(text: str, weights: dict[str, Array], feed: dict[str, Array]) -> Any:
    model = build(text, weights)
    InsertQDQ(min_max(model, Scheme(), feed), Scheme())(model)
    return model


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kind", ["conv", "gemm"])
def test_int32_bias_of_a_quantized_model(kind: str, with_bias: bool) -> None:
    text, weight, feed = (CONV, CONV_W, IMAGE) if kind == "conv" else (GEMM, GEMM_W, ROWS)
    weights = {"w": weight} | ({"b": BIAS} if with_bias else {})
    text = text.format(inputs="x, w, b" if with_bias else "x, w")
    model, error = quantized(text, weights, feed), np.linspace(-0.5, 0.5, 8)
    before = mean(execute(model, feed)[0])
    passed = CorrectBias({"layer": error})
    assert passed(model).modified
    assert decision(passed.decisions, "layer") == (
        True,
        "its int32 bias was corrected" if with_bias else "an int32 bias was made",
    )
    bias = node_named(model, "layer").inputs[2]
    assert bias is not None and bias.producer() is not None
    assert bias.producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
    after = mean(execute(model, feed)[0])
    # Outputs that saturate move less; the data's range bounds how many.
    np.testing.assert_allclose(before - after, error, atol=0.08)
    assert relative(execute(model, feed, optimize=True)[0], execute(model, feed)[0]) < 0.01


def test_measured_error_goes() -> None:
    text, weights = GEMM.format(inputs="x, w, b"), {"w": GEMM_W, "b": BIAS}
    weights["w"] = GEMM_W * np.where(np.arange(16) % 4, 0.02, 1).astype(np.float32)[:, None]
    feed = ROWS
    expected = mean(execute(build(text, weights), feed)[0])
    model = quantized(text, weights, feed)
    error = mean(execute(model, feed)[0]) - expected
    CorrectBias({"layer": error})(model)
    left = mean(execute(model, feed)[0]) - expected
    assert np.linalg.norm(left) < 0.3 * np.linalg.norm(error)


def test_shared_biases_are_split() -> None:
    text = """g (float[M, 16] x) => (float[M, N] y, float[M, N] z) {
        [layer] y = Gemm (x, w, b)
        [other] z = Gemm (x, w, b)
    }"""
    for model in (build(text, {"w": GEMM_W, "b": BIAS}), quantized(text, {"w": GEMM_W, "b": BIAS}, ROWS)):
        before = execute(model, ROWS)
        CorrectBias({"layer": ERROR * 0.1})(model)
        after = execute(model, ROWS)
        assert np.any(after[0] != before[0])
        np.testing.assert_array_equal(after[1], before[1])


def test_shared_dequantized_bias_is_split() -> None:
    text = """g (float[M, 16] x) => (float[M, N] y, float[M, N] z) {
        b = DequantizeLinear <axis = 0> (q, s)
        [layer] y = Gemm (x, w, b)
        [other] z = Gemm (x, w, b)
    }"""
    model = build(text, {"w": GEMM_W, "q": np.arange(8, dtype=np.int32), "s": np.full(8, 0.01, np.float32)})
    before = execute(model, ROWS)
    CorrectBias({"layer": ERROR})(model)
    after = execute(model, ROWS)
    np.testing.assert_allclose(after[0], before[0] - ERROR, atol=0.006)
    np.testing.assert_array_equal(after[1], before[1])


def test_int32_bias_saturates() -> None:
    text = "g (float[M, 16] x) => (float[M, N] y) { b = DequantizeLinear <axis = 0> (q, s) [layer] y = Gemm (x, w, b) }"
    model = build(text, {"w": GEMM_W, "q": np.zeros(8, np.int32), "s": np.full(8, 1e-12, np.float32)})
    CorrectBias({"layer": ERROR})(model)
    stored = model.graph.initializers["q"].const_value
    assert stored is not None and stored.numpy()[0] == 2**31 - 1 and stored.numpy()[-1] == -(2**31)


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("[layer] y = Relu (x)", {}, "Relu has no bias to correct"),
        ("[layer] y = Gemm <beta = 0.5> (x, w, b)", {"w": GEMM_W, "b": BIAS}, "Gemm with beta other than 1"),
        ("c = Abs (b) [layer] y = Gemm (x, w, c)", {"w": GEMM_W, "b": BIAS}, "its bias is not constant"),
        (
            "r = Neg (s) c = DequantizeLinear (q, r) [layer] y = Gemm (x, w, c)",
            {"w": GEMM_W, "q": np.ones(8, np.int32), "s": np.ones(8, np.float32)},
            "its bias is not a constant int32",
        ),
        (
            "w = DequantizeLinear (q, s) [layer] y = Gemm (x, w)",
            {"q": np.ones((16, 8), np.int8), "s": np.float32(1)},
            "its input and weight have no constant scales to make a bias from",
        ),
    ],
)
def test_refusals(text: str, weights: dict[str, Array], reason: str) -> None:
    model = build(f"g (float[M, 16] x) => (float[M, N] y) {{ {text} }}", weights)
    passed = CorrectBias({"layer": ERROR})
    assert not passed(model).modified
    assert decision(passed.decisions, "layer") == (False, reason)


def test_no_error_changes_nothing() -> None:
    passed = CorrectBias({"layer": np.zeros(8)})
    assert not passed(build(GEMM.format(inputs="x, w"), {"w": GEMM_W})).modified
    assert decision(passed.decisions, "layer") == (False, "it has no error")


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({"nowhere": ERROR}, "does not have"),
        ({"layer": np.full(8, np.inf)}, "finite"),
        ({"layer": np.ones((2, 4))}, "per channel"),
        ({"layer": np.ones(5)}, "5 channels, the layer 8"),
    ],
)
def test_wrong_errors(errors: dict[str, Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorrectBias(errors)(build(GEMM.format(inputs="x, w"), {"w": GEMM_W}))


@pytest.mark.parametrize("axis", [0, 1])
def test_expected_error_of_a_matrix_is_the_measured_one(axis: int) -> None:
    weight = GEMM_W if axis == 1 else np.ascontiguousarray(GEMM_W.T)
    scales = weight_scales(weight, axis)
    rounded = dequantize_weight(quantize_weight(weight, scales, axis), scales, axis)
    x = ROWS["x"].astype(np.float64)
    difference = (rounded - weight).astype(np.float64)
    measured = (x @ (difference if axis == 1 else difference.T)).mean(axis=0)
    np.testing.assert_allclose(
        expected_weight_error(weight, scales, axis, x.mean(axis=0)), measured, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize(("group", "kernel"), [(1, 1), (1, 3), (2, 3), (4, 3)])
def test_expected_error_of_a_convolution_is_the_measured_one_without_borders(group: int, kernel: int) -> None:
    weight = normal(8, 4 // group, kernel, kernel)
    text = f"g (float[N, 4, 9, 9] x) => (float[N, C, P, Q] y) {{ y = Conv <group = {group}> (x, w) }}"
    scales = weight_scales(weight, 0)
    rounded = dequantize_weight(quantize_weight(weight, scales, 0), scales, 0)
    # Constant channels: then every window's mean is the channel's.
    means = np.array([0.5, 2.0, -1.0, 3.0])
    feed = {"x": np.broadcast_to(means.reshape(1, 4, 1, 1), (2, 4, 9, 9)).astype(np.float32)}
    measured = mean(execute(build(text, {"w": rounded}), feed)[0]) - mean(execute(build(text, {"w": weight}), feed)[0])
    np.testing.assert_allclose(expected_weight_error(weight, scales, 0, means), measured, atol=1e-5)


def test_means_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        expected_weight_error(CONV_W, weight_scales(CONV_W, 0), 0, np.ones(6))


def test_an_add_is_made_for_every_reader() -> None:
    text = "g (float[M, 16] x) => (float[M, N] y, float[M, N] z) { [layer] a = MatMul (x, w) y = Relu (a) z = Neg (a) }"
    model = build(text, {"w": GEMM_W})
    before = ROWS["x"] @ GEMM_W - ERROR
    CorrectBias({"layer": ERROR})(model)
    assert ops(model).count("Add") == 1
    assert relative(execute(model, ROWS)[1], -before) < 1e-5
