"""Cross-layer equalization: the float model must not change, the ranges must become equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.passes.quantize import EqualizeChannels
from tests.passes.quantize.models import Array, build, decision, execute, normal, relative

SPREAD = np.logspace(-1.5, 1.5, 8).astype(np.float32)
X = {"x": normal(2, 3, 8, 8, seed=5)}
LOSSLESS = 1e-5

WEIGHTS = {
    "w1": normal(8, 3, 3, 3) * SPREAD[:, None, None, None],
    "b1": normal(8, seed=1) * SPREAD,
    "w2": normal(6, 8, 1, 1, seed=2),
    "depth": normal(8, 1, 3, 3, seed=3),
    "grouped": normal(4, 4, 3, 3, seed=4),
    "fc": normal(8, 5, seed=6),
    "fct": normal(5, 8 * 36, seed=7),
    "fc2": normal(5, 4, seed=8),
    "bf": normal(5, seed=9),
    "slope": np.abs(normal(8, 1, 1, seed=10)),
}
CONV = "[first] a = Conv (x, w1, b1)"


def model_of(body: str, outputs: str = "float[A, B, C, D] y", weights: dict[str, Array] | None = None) -> Any:
    known = WEIGHTS | (weights or {})
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    text = f"g (float[2, 3, 8, 8] x) => ({outputs}) {{ {body} }}"
    return build(text, {name: array for name, array in known.items() if name in words})


def weight(model: Any, name: str) -> Array:
    array: Array = model.graph.initializers[name].const_value.numpy()
    return array


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (f"{CONV} [second] y = Conv (a, w2)", "float[A, B, C, D] y"),
        ("[first] a = Conv (x, w1) h = Relu (a) [second] y = Conv (h, w2)", "float[A, B, C, D] y"),
        (f"{CONV} h = LeakyRelu (a) [second] y = Conv (h, w2)", "float[A, B, C, D] y"),
        (f"{CONV} h = PRelu (a, slope) [second] y = Conv (h, w2)", "float[A, B, C, D] y"),
        (
            f"{CONV} h = Relu (a) p = MaxPool <kernel_shape = [2, 2]> (h) [second] y = Conv (p, w2)",
            "float[A, B, C, D] y",
        ),
        (
            f"{CONV} h = Relu (a) [second] y = Conv <group = 8, pads = [1, 1, 1, 1]> (h, depth)",
            "float[A, B, C, D] y",
        ),
        (f"{CONV} h = Relu (a) [second] y = Conv <group = 2> (h, grouped)", "float[A, B, C, D] y"),
        (
            f"{CONV} h = Relu (a) p = GlobalAveragePool (h) f = Flatten (p) [second] y = Gemm (f, fc, bf)",
            "float[A, B] y",
        ),
        (
            f"{CONV} h = Relu (a) f = Flatten <axis = 1> (h) [second] y = Gemm <transB = 1> (f, fct)",
            "float[A, B] y",
        ),
    ],
)
def test_lossless_and_equal(body: str, outputs: str) -> None:
    model = model_of(body, outputs)
    before = execute(model, X)[0]
    passed = EqualizeChannels()
    assert passed(model).modified
    assert relative(execute(model, X)[0], before) < LOSSLESS
    assert decision(passed.decisions, "first") == (True, "equalized with second")
    ranges = np.abs(weight(model, "w1")).max(axis=(1, 2, 3))
    assert ranges.max() / ranges.min() < 0.2 * SPREAD.max() / SPREAD.min()


def test_ranges_meet_in_the_middle() -> None:
    model = model_of(f"{CONV} [second] y = Conv (a, w2)")
    r1, r2 = np.abs(WEIGHTS["w1"]).max(axis=(1, 2, 3)), np.abs(WEIGHTS["w2"]).max(axis=(0, 2, 3))
    EqualizeChannels()(model)
    np.testing.assert_allclose(np.abs(weight(model, "w1")).max(axis=(1, 2, 3)), np.sqrt(r1 * r2), rtol=1e-3)
    np.testing.assert_allclose(np.abs(weight(model, "w2")).max(axis=(0, 2, 3)), np.sqrt(r1 * r2), rtol=1e-3)


def test_chain_of_three_converges_and_a_second_run_changes_nothing() -> None:
    body = f"""{CONV} h = Relu (a)
        [middle] b = Conv <group = 8> (h, depth)
        i = Relu (b)
        [last] y = Conv (i, w2)"""
    model = model_of(body)
    before = execute(model, X)[0]
    assert EqualizeChannels()(model).modified
    assert relative(execute(model, X)[0], before) < LOSSLESS
    for one, other in (("w1", "depth"), ("depth", "w2")):
        ends = np.abs(weight(model, one)).max(axis=(1, 2, 3))
        starts = np.abs(weight(model, other)).max(axis=(1, 2, 3) if other == "depth" else (0, 2, 3))
        np.testing.assert_allclose(ends, starts, rtol=0.01)
    assert not EqualizeChannels()(model).modified


def test_gemm_pairs() -> None:
    text = """g (float[3, 8] x) => (float[A, B] y) {
        [first] a = Gemm (x, fc, bf)
        h = Relu (a)
        [second] y = Gemm (h, fc2)
    }"""
    weights = {name: WEIGHTS[name] for name in ("fc", "bf", "fc2")}
    weights["fc"] = weights["fc"] * SPREAD[:5]
    model, feed = build(text, weights), {"x": normal(3, 8)}
    before = execute(model, feed)[0]
    passed = EqualizeChannels()
    assert passed(model).modified
    assert relative(execute(model, feed)[0], before) < LOSSLESS
    assert decision(passed.decisions, "first")[0]
    assert decision(passed.decisions, "second") == (False, "its output is an output of the model")


def test_shared_weight_is_split() -> None:
    body = f"{CONV} [second] b = Conv (a, w2) c = Conv (x, w1) [third] d = Conv (c, w2) y = Sum (b, d)"
    model = model_of(body)
    before = execute(model, X)[0]
    assert EqualizeChannels()(model).modified
    assert relative(execute(model, X)[0], before) < LOSSLESS


def test_dead_channels_keep_their_bias() -> None:
    dead = WEIGHTS["w1"].copy()
    dead[2] = 0
    dead[3] *= 1e-12
    model = model_of(f"{CONV} [second] y = Conv (a, w2)", weights={"w1": dead})
    before = execute(model, X)[0]
    EqualizeChannels()(model)
    assert relative(execute(model, X)[0], before) < LOSSLESS
    np.testing.assert_allclose(weight(model, "b1")[2:4], WEIGHTS["b1"][2:4])


SECOND = "[second] y = Conv (h, w2)"


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        (f"{CONV} h = Clip (a, low, high) {SECOND}", None, "Clip after it does not commute with a scale"),
        (f"{CONV} h = Sigmoid (a) {SECOND}", None, "Sigmoid after it does not commute with a scale"),
        (
            f"{CONV} h = Relu (a) {SECOND}",
            "float[A, B, C, D] y, float[E, F, G, H] a",
            "its output is an output of the model",
        ),
        (
            f"{CONV} h = Relu (a) b = Conv (h, w2) c = Conv (h, w2) y = Sum (b, c)",
            None,
            "its output is read 2 times",
        ),
        (f"{CONV} h = Sum (zero, a) {SECOND}", None, "its output is not the first input of Sum"),
        (
            f"{CONV} f = Flatten <axis = 2> (a) y = Gemm (f, fc)",
            "float[A, B] y",
            "Flatten after it mixes channels and samples",
        ),
        (f"{CONV} [only] y = Neg (a)", None, "Neg after it does not commute with a scale"),
        (
            "z = Abs (w1) [first] h = Conv (x, z) [second] y = Conv (h, w2)",
            None,
            "its weight is not a constant float32",
        ),
        (
            "z = Abs (b1) [first] h = Conv (x, w1, z) [second] y = Conv (h, w2)",
            None,
            "its bias is not constant",
        ),
        (
            f"{CONV} z = Abs (w2) [second] y = Conv (a, z)",
            None,
            "the Conv after it cannot take a scale: its weight is not a constant float32",
        ),
        (
            f"{CONV} p, i = MaxPool <kernel_shape = [2, 2]> (a) [second] y = Conv (p, w2)",
            "float[A, B, C, D] y, int64[E, F, G, H] i",
            "MaxPool after it has more than one output",
        ),
    ],
)
def test_refusals(body: str, outputs: str | None, reason: str) -> None:
    extra = {"low": np.float32(0), "high": np.float32(6), "zero": np.zeros((1, 1, 1, 1), np.float32)}
    model = model_of(body, outputs or "float[A, B, C, D] y", extra)  # type: ignore[arg-type]
    passed = EqualizeChannels()
    assert not passed(model).modified
    assert decision(passed.decisions, "first") == (False, reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "[first] a = Gemm (x, fc, row) [second] y = Gemm (a, fc2)",
            "its bias is not a vector of its channels",
        ),
        ("[first] a = Gemm <transA = 1> (t, fc) [second] y = Gemm (a, fc2)", "Gemm with transA"),
        (
            "[first] a = Gemm (x, fc) [second] y = Gemm <transA = 1> (a, wide)",
            "the Gemm after it cannot take a scale: Gemm with transA",
        ),
    ],
)
def test_gemm_refusals(body: str, reason: str) -> None:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    known = {"fc": WEIGHTS["fc"], "fc2": WEIGHTS["fc2"], "row": normal(1, 5), "wide": normal(3, 4)}
    text = f"g (float[3, 8] x, float[8, 3] t) => (float[A, B] y) {{ {body} }}"
    passed = EqualizeChannels()
    assert not passed(build(text, {name: array for name, array in known.items() if name in words})).modified
    assert decision(passed.decisions, "first") == (False, reason)


def test_reader_in_a_subgraph_is_refused() -> None:
    text = """g (float[2, 3, 8, 8] x, bool c) => (float[A, B, C, D] y) {
        [first] a = Conv (x, w1)
        y = If (c) <
            then_branch = t () => (float[A, B, C, D] u) { u = Conv (a, w2) },
            else_branch = e () => (float[A, B, C, D] v) { v = Identity (z) }
        >
    }"""
    model = build(text, {"w1": WEIGHTS["w1"], "w2": WEIGHTS["w2"], "z": normal(1, 1, 1, 1)}, check=False)
    passed = EqualizeChannels()
    assert not passed(model).modified
    assert decision(passed.decisions, "first") == (False, "its reader lies in a subgraph")
