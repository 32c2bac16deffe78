"""Layers with weights of 4 or 8 bits become WeightOnlyLinear with the same results."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.model_io import load_model, save_model
from onnxcompress.passes.lower import LowerWeightOnly, replaced_nodes
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.quantize.weight_only import QuantizeWeights
from onnxcompress.quantizer import quantize
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run
from tests.passes.lower.weight_only import FLOATS, GATED, MATMUL, SILU, X, check, lowered, quantized
from tests.passes.quantize.models import build, decision, execute, normal, ops, relative
from tests.zoo import ZooModel, minilm

Zoo = Callable[[str], ZooModel]


@pytest.mark.parametrize("form", ["dequantize", "nbits"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block", "said"), [
    (4, 32, "4 bits in blocks of 32"), (8, 32, "8 bits in blocks of 32"), (4, 64, "4 bits per channel"),
])  # fmt: skip
def test_every_storage(form: Any, symmetric: bool, bits: int, block: int, said: str) -> None:
    model = quantized(MATMUL, {"w": normal(64, 48)}, bits, block_size=block, form=form, symmetric=symmetric)
    decisions = check(model, X, ["WeightOnlyLinear"])
    assert decision(decisions, "m") == (True, f"WeightOnlyLinear, {said}")


def test_a_scale_for_each_output() -> None:
    model = quantized(MATMUL, {"w": normal(64, 48)}, 8)
    assert decision(check(model, X, ["WeightOnlyLinear"]), "m")[1] == "WeightOnlyLinear, 8 bits per channel"


@pytest.mark.parametrize("inputs", [72, 33])
def test_inputs_that_are_padded(inputs: int) -> None:
    text = f"g (float[M, {inputs}] x) => (float[M, N] y) {{ [m] y = MatMul (x, w) }}"
    model = quantized(text, {"w": normal(inputs, 48)}, form="nbits")
    check(model, {"x": normal(5, inputs)}, ["WeightOnlyLinear"])


def test_larger_blocks_are_several_that_agree() -> None:
    text = "g (float[M, 600] x) => (float[M, N] y) { [m] y = MatMul (x, w) }"
    model = quantized(text, {"w": normal(600, 20)}, form="nbits", block_size=256)
    decisions = check(model, {"x": normal(5, 600)}, ["WeightOnlyLinear"])
    assert decisions[0].reason == "WeightOnlyLinear, 4 bits in blocks of 128"


DEQUANTIZED = """g (float[M, 64] x) => (float[M, N] y) {{
    d = DequantizeLinear {attributes} (w, s{zero})
    [m] y = MatMul (x, d)
}}"""


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("zero", ["", ", z"])
@pytest.mark.parametrize("scales", [(), (48,)])
def test_integers_of_every_kind(kind: Any, zero: str, scales: tuple[int, ...]) -> None:
    """Without a zero point it is 0 for unsigned integers too, which is not the operator's default."""
    rng, info = np.random.default_rng(0), np.iinfo(kind)
    values: dict[str, Any] = {"w": rng.integers(info.min, info.max, (64, 48), kind, endpoint=True)}
    values["s"] = rng.uniform(0.01, 0.02, scales).astype(np.float32)
    if zero:
        values["z"] = rng.integers(info.min, info.max, scales, kind, endpoint=True)
    attributes = "<axis = 1>" if scales else ""
    model = build(DEQUANTIZED.format(attributes=attributes, zero=zero), {k: np.asarray(v) for k, v in values.items()})
    check(model, {"x": normal(5, 64)}, ["WeightOnlyLinear"])


@pytest.mark.parametrize("form", ["dequantize", "nbits"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(form: Any, transposed: int) -> None:
    weight = normal(64, 48)
    text = f"""g (float[M, 64] x) => (float[M, N] y) {{
        [m] h = Gemm <transB = {transposed}> (x, w, b)
        [a] y = Relu (h)
    }}"""
    model = quantized(text, {"w": weight.T.copy() if transposed else weight, "b": normal(48, seed=1)}, form=form)
    decisions = check(model, {"x": normal(5, 64)}, ["WeightOnlyLinear"])
    assert decision(decisions, "m") == decision(decisions, "a")
    assert decisions[0].reason == "WeightOnlyLinear + relu, 4 bits in blocks of 32"


def test_a_transposed_weight() -> None:
    text = "g (float[M, 64] x) => (float[M, N] y) { t = Transpose (w) [m] y = MatMul (x, t) }"
    check(quantized(text, {"w": normal(48, 64)}), {"x": normal(5, 64)}, ["WeightOnlyLinear"])


LAYER = """g (float[2, M, 64] x, float[2, M, 48] r) => (float[2, M, 48] y) {{
    [m] p = MatMul (x, w)
    [b] h = Add (b, p)
    {activation}
    [r] y = Add (a, r)
}}"""


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        ("[a] a = Relu (h)", "relu"),
        ("[a] a = Gelu (h)", "gelu"),
        ('[a] a = Gelu <approximate = "tanh"> (h)', "gelu_tanh"),
        ("[s] s = Sigmoid (h) [a] a = Mul (h, s)", "silu"),
        ("[a] a = HardSwish (h)", "hardswish"),
    ],
)
@pytest.mark.parametrize("form", ["dequantize", "nbits"])
def test_bias_activation_and_residual(form: Any, activation: str, name: str) -> None:
    text = LAYER.format(activation=activation)
    model = quantized(text, {"w": normal(64, 48), "b": normal(48, seed=1)}, form=form)
    decisions = check(model, X | {"r": normal(2, 3, 48)}, ["WeightOnlyLinear"])
    assert {found.reason for found in decisions} == {f"WeightOnlyLinear + {name} + residual, 4 bits in blocks of 32"}
    copy, _ = lowered(model)
    assert set(replaced_nodes(copy.graph[0])) == {
        node.name for node in model.graph if node.op_type != "DequantizeLinear"
    }
    kept, decisions = lowered(model, standard=("a",))
    assert "WeightOnlyLinear" not in ops(kept) and not any(found.quantized for found in decisions)


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ("[a] y = Tanh (h)", ["Tanh"]),
        ("s = Sigmoid (h) t = Mul (h, s) [a] y = Mul (t, s)", ["Sigmoid", "Mul", "Mul"]),
        ("c = Relu (h) d = Neg (h) [a] y = Mul (c, d)", ["Relu", "Neg", "Mul"]),
        ("[a] y = com.microsoft.QuickGelu <alpha = 1.702> (h)", ["QuickGelu"]),
        ("[a] y = Mul (h, h)", ["Mul"]),
    ],
)
def test_what_follows_but_is_no_activation_stays(tail: str, kept: list[str]) -> None:
    text = f"g (float[M, 64] x) => (float[M, N] y) {{ [m] h = MatMul (x, w) {tail} }}"
    check(quantized(text, {"w": normal(64, 48)}), {"x": normal(5, 64)}, ["WeightOnlyLinear", *kept])


def test_a_sum_that_gives_more_axes_stays() -> None:
    text = "g (float[M, 64] x) => (float[A, B, C] y) { [m] h = MatMul (x, w) [s] y = Add (h, b) }"
    model = quantized(text, {"w": normal(64, 48), "b": normal(1, 1, 48)})
    check(model, {"x": normal(5, 64)}, ["WeightOnlyLinear", "Add"])


def test_halves() -> None:
    text = """g (float16[M, 64] x) => (float16[M, N] y) {
        d = DequantizeLinear <axis = 0, block_size = 32> (w, s, z)
        h = MatMul (x, d)
        c = Add (h, b)
        y = Gelu (c)
    }"""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "w": rng.integers(0, 256, (64, 48)).astype(np.uint8), "z": rng.integers(0, 256, (2, 48)).astype(np.uint8),
        "s": rng.uniform(0.0005, 0.001, (2, 48)).astype(np.float16), "b": normal(48).astype(np.float16),
    }  # fmt: skip
    model = build(text, weights)
    check(model, {"x": normal(5, 64).astype(np.float16)}, ["WeightOnlyLinear"], tolerance=5e-3)


@pytest.mark.parametrize("form", ["dequantize", "nbits"])
@pytest.mark.parametrize(
    ("between", "product", "name"),
    [
        (SILU, "Mul (a, u)", "WeightOnlyLinear + silu + gated"),
        (SILU, "Mul (u, a)", "WeightOnlyLinear + silu + gated"),
        ("a = Gelu (g)", "Mul (a, u)", "WeightOnlyLinear + gelu + gated"),
        ("h = Add (g, b) a = Relu (h)", "Mul (a, u)", "WeightOnlyLinear + relu + gated"),
        ("", "Mul (g, u)", "WeightOnlyLinear + gated"),
        (f"{SILU} p = Mul (a, u)", "Add (r, p)", "WeightOnlyLinear + silu + gated + residual"),
    ],
)
def test_gate_and_up_become_one(form: Any, between: str, product: str, name: str) -> None:
    weights = {"wu": normal(64, 48), "wg": normal(64, 48, seed=1)}
    if "b)" in between:
        weights["b"] = normal(48, seed=2)
    model = quantized(GATED.format(between=between, product=product), weights, form=form)
    decisions = check(model, X | {"r": normal(2, 3, 48)}, ["WeightOnlyLinear"])
    assert decision(decisions, "gate") == decision(decisions, "up") == (True, f"{name}, 4 bits in blocks of 32")


@pytest.mark.parametrize("bits", [4, 8])
def test_zero_points_of_one_of_the_two(bits: Any) -> None:
    """The other's are then the middle code."""
    text = GATED.format(between=SILU, product="Mul (a, u)")
    symmetric, general = (
        quantized(text, {"wu": normal(64, 48), "wg": normal(64, 48, seed=1)}, bits, form="nbits", symmetric=s)
        for s in (True, False)
    )
    up = next(node for node in general.graph if node.name == "up")
    other = next(node for node in symmetric.graph if node.name == "up")
    for index in (1, 2):
        value = other.inputs[index]
        assert value is not None and value.const_value is not None
        general.graph.initializers[up.inputs[index].name].const_value = value.const_value  # type: ignore[union-attr, index]
    up.resize_inputs(3)
    for name in [name for name, value in general.graph.initializers.items() if not value.uses()]:
        general.graph.initializers.pop(name)
    check(general, X | {"r": normal(2, 3, 48)}, ["WeightOnlyLinear"])


@pytest.mark.parametrize(
    ("between", "product", "count"),
    [
        (f"{SILU} e = Neg (u)", "Mul (a, e)", 2),  # not the result itself
        (f"{SILU} e = Add (u, r)", "Mul (a, e)", 2),
        (f"{SILU} e = Relu (u)", "Mul (a, e)", 2),  # two activations
        (f"{SILU} e = Mul (a, u)", "Add (e, u)", 2),  # somebody else reads it
        (f"{SILU} e = Mul (a, a)", "Add (e, u)", 2),  # a square
    ],
)
def test_products_that_are_no_gate_stay(between: str, product: str, count: int) -> None:
    weights = {"wu": normal(64, 48), "wg": normal(64, 48, seed=1)}
    model = quantized(GATED.format(between=between, product=product), weights, form="nbits")
    copy, _ = lowered(model)
    assert ops(copy).count("WeightOnlyLinear") == count and "Mul" in ops(copy)
    feed = X | {"r": normal(2, 3, 48)}
    assert relative(run(open_session(copy, native=True), feed)[0], execute(model, feed)[0]) < FLOATS


def test_layers_of_two_inputs_or_two_storages_are_no_pair() -> None:
    text = """g (float[M, 64] x, float[M, 64] z) => (float[M, N] y) {
        u = MatMul (z, wu)
        g = MatMul (x, wg)
        y = Mul (g, u)
    }"""
    weights = {"wu": normal(64, 48), "wg": normal(64, 48, seed=1)}
    feed = {"x": normal(5, 64), "z": normal(5, 64, seed=2)}
    check(quantized(text, weights), feed, ["WeightOnlyLinear", "WeightOnlyLinear", "Mul"])
    one = build(text.replace("MatMul (z,", "MatMul (x,"), weights)
    QuantizeWeights(8, minimum_weights=1, exclude=frozenset({"u"}))(one)
    QuantizeWeights(4, minimum_weights=1)(one)
    check(one, feed, ["WeightOnlyLinear", "WeightOnlyLinear", "Mul"])


def test_two_layers_of_one_weight_store_it_once() -> None:
    text = """g (float[M, 64] x, float[M, 64] z) => (float[M, N] y, float[M, N] v) {
        t = Transpose (w)
        y = MatMul (x, t)
        v = MatMul (z, t)
    }"""
    model = quantized(text, {"w": normal(48, 64)})
    check(model, {"x": normal(5, 64), "z": normal(5, 64, seed=2)}, ["WeightOnlyLinear", "WeightOnlyLinear"])
    copy, _ = lowered(model)
    assert copy.graph[0].inputs[1] is copy.graph[1].inputs[1]


def test_weights_outside_memory_are_read_when_the_model_is_saved(tmp_path: Path) -> None:
    model = quantized(GATED.format(between=SILU, product="Mul (a, u)"), {"wu": normal(64, 48), "wg": normal(64, 48)})
    ir.save(model, tmp_path / "model.onnx", external_data="model.onnx.data")
    outside = load_model(tmp_path / "model.onnx")
    LowerWeightOnly()(outside)
    (node,) = outside.graph
    assert node.inputs[1] is not None and isinstance(node.inputs[1].const_value, ir.LazyTensor)
    AttachFunctions()(outside)
    save_model(outside, tmp_path / "lowered.onnx")
    feed = X | {"r": normal(2, 3, 48)}
    y = run(open_session(load_model(tmp_path / "lowered.onnx"), native=True), feed)[0]
    assert relative(y, execute(model, feed)[0]) < FLOATS


@pytest.mark.parametrize("portable", [True, False])
def test_minilm(zoo: Zoo, portable: bool) -> None:
    """Six layers of six products each, as without the pass, where products are in float."""
    model = quantize(load_model(zoo("minilm").path()), mode="weight-only", weights="int4", portable=portable).model
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    copy, decisions = lowered(model)
    census = ops(copy)
    assert census.count("WeightOnlyLinear") == 36
    assert not {"MatMulNBits", "Gelu"} & set(census)
    assert sum(found.quantized for found in decisions if found.op in ("MatMul", "MatMulNBits")) == 36
    session, native = open_session(model, optimize=False), open_session(copy, native=True)
    for feed in islice(minilm.sentences500(), 4):
        for y, want in zip(run(native, feed), run(session, feed), strict=True):
            assert relative(y, want) < 1e-4
