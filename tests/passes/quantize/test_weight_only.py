"""Weight-only quantization: every form against numpy, ONNX Runtime and onnx's own evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.model_io import initializer_bytes
from onnxcompress.passes.quantize import QuantizeWeights, arithmetic, blocks
from tests.passes.quantize.models import (
    build,
    decision,
    execute,
    node_named,
    normal,
    ops,
    reference,
    relative,
)

Array = np.ndarray[Any, Any]

MATMUL = "g (float[M, 64] x) => (float[M, N] y) { [m] y = MatMul (x, w) }"
X = {"x": normal(5, 64, seed=9)}
STEP = 1e-5
"""Relative tolerance between runtimes that add the same numbers in another order."""


def dequantized(weight: Array, **options: Any) -> Array:
    """What a `[K, N]` weight becomes: computed apart from the pass."""
    bits, size, symmetric = options["bits"], options["size"], options["symmetric"]
    scales, zeros = blocks.block_parameters(weight.T, size, bits, symmetric=symmetric)
    integers = blocks.quantize_blocks(weight.T, scales, zeros, size, bits)
    return blocks.dequantize_blocks(integers, scales, zeros, size)[:, : len(weight)].T


def test_8_bits_per_channel_is_what_numpy_gives() -> None:
    weight = normal(64, 48)
    model = build(MATMUL, {"w": weight})
    passed = QuantizeWeights(8)
    assert passed(model).modified
    assert ops(model) == ["DequantizeLinear", "MatMul"]
    scales = np.abs(weight).max(axis=0) / 127
    expected = X["x"] @ (np.rint(weight / scales) * scales)
    for outputs in (execute(model, X), reference(model, X)):
        assert relative(outputs[0], expected) < STEP
    # Optimized, ONNX Runtime makes it a MatMulNBits with int8 activations.
    assert relative(execute(model, X, optimize=True)[0], expected) < 0.02
    assert decision(passed.decisions, "m") == (True, "8 bits per channel")
    assert "w" not in model.graph.initializers
    assert initializer_bytes(model) == 64 * 48 + 4 * 48


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [16, 32])
def test_4_bits_dequantize_is_what_numpy_gives(symmetric: bool, size: int) -> None:
    weight = normal(64, 48) + np.float32(0.5)
    model = build(MATMUL, {"w": weight})
    QuantizeWeights(4, block_size=size, symmetric=symmetric)(model)
    assert ops(model) == ["DequantizeLinear", "MatMul"]
    stored = model.graph[0].inputs[0]
    assert stored is not None
    assert stored.dtype == (ir.DataType.INT4 if symmetric else ir.DataType.UINT4)
    expected = X["x"] @ dequantized(weight, bits=4, size=size, symmetric=symmetric)
    assert relative(execute(model, X)[0], expected) < STEP
    assert relative(reference(model, X)[0], expected) < STEP
    # Optimized, ONNX Runtime makes it a MatMulNBits with int8 activations.
    assert relative(execute(model, X, optimize=True)[0], expected) < 0.02


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("inputs", [64, 72, 33])
def test_nbits_is_what_numpy_gives_with_padding(bits: Any, symmetric: bool, inputs: int) -> None:
    weight = normal(inputs, 48) - np.float32(0.5)
    model = build(f"g (float[M, {inputs}] x) => (float[M, N] y) {{ [m] y = MatMul (x, w) }}", {"w": weight})
    passed = QuantizeWeights(bits, form="nbits", symmetric=symmetric)
    passed(model)
    assert [node.op_identifier()[:2] for node in model.graph] == [("com.microsoft", "MatMulNBits")]
    assert model.opset_imports["com.microsoft"] == 1
    feed = {"x": normal(5, inputs, seed=3)}
    expected = feed["x"] @ dequantized(weight, bits=bits, size=32, symmetric=symmetric)
    assert relative(execute(model, feed)[0], expected) < STEP
    assert decision(passed.decisions, "m") == (True, f"{bits} bits in blocks of 32 (MatMulNBits)")


def test_nbits_accuracy_level_is_set() -> None:
    model = build(MATMUL, {"w": normal(64, 48)})
    QuantizeWeights(4, form="nbits", accuracy_level=4)(model)
    assert model.graph[0].attributes.get_int("accuracy_level") == 4
    expected = X["x"] @ dequantized(normal(64, 48), bits=4, size=32, symmetric=False)
    assert relative(execute(model, X)[0], expected) < 0.02


@pytest.mark.parametrize("form", ["dequantize", "nbits"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_bias(form: Any, transposed: int) -> None:
    weight, bias = normal(64, 48), normal(48, seed=1)
    text = f"g (float[M, 64] x) => (float[M, N] y) {{ [m] y = Gemm <transB = {transposed}> (x, w, b) }}"
    model = build(text, {"w": weight.T.copy() if transposed else weight, "b": bias})
    QuantizeWeights(4, form=form)(model)
    assert ops(model)[-1] == ("MatMulNBits" if form == "nbits" else "Gemm")
    expected = X["x"] @ dequantized(weight, bits=4, size=32, symmetric=False) + bias
    assert relative(execute(model, X)[0], expected) < STEP


@pytest.mark.parametrize(
    ("attributes", "x", "bias"),
    [
        ("<alpha = 2.0>", normal(5, 64), normal(48)),
        ("<beta = 2.0>", normal(5, 64), normal(48)),
        ("<transA = 1>", normal(64, 5), normal(48)),
        ("", normal(5, 64), normal(1, 48)),
        ("", normal(5, 64), normal(1)),
    ],
)
def test_gemm_that_nbits_cannot_express_is_dequantized(attributes: str, x: Array, bias: Array) -> None:
    text = f"g (float[A, B] x) => (float[M, N] y) {{ [m] y = Gemm {attributes} (x, w, b) }}"
    model = build(text, {"w": normal(64, 48), "b": bias})
    before = execute(model, {"x": x})[0]
    passed = QuantizeWeights(8, block_size=16, form="nbits")
    passed(model)
    assert ops(model) == ["DequantizeLinear", "Gemm"]
    assert passed.decisions[0].reason == "8 bits in blocks of 16: MatMulNBits cannot express it"
    assert relative(execute(model, {"x": x})[0], before) < 0.01


def test_8_bits_in_blocks() -> None:
    weight = normal(64, 48)
    model = build(MATMUL, {"w": weight})
    QuantizeWeights(8, block_size=16)(model)
    expected = X["x"] @ dequantized(weight, bits=8, size=16, symmetric=True)
    assert relative(execute(model, X)[0], expected) < STEP
    assert relative(reference(model, X)[0], expected) < STEP


def test_4_bits_falls_to_8_per_channel_where_blocks_do_not_fit() -> None:
    model = build("g (float[M, 40] x) => (float[M, N] y) { [m] y = MatMul (x, w) }", {"w": normal(40, 48)})
    passed = QuantizeWeights(4)
    passed(model)
    assert decision(passed.decisions, "m") == (
        True,
        "8 bits per channel: its inputs are not a multiple of 32",
    )
    execute(model, {"x": normal(2, 40)})


def test_conv_and_depthwise_conv_take_8_bits() -> None:
    text = """g (float[1, 16, 9, 9] x) => (float[1, 16, P, Q] y) {
        [a] h = Conv <group = 16, pads = [1, 1, 1, 1]> (x, d)
        [b] y = Conv <strides = [2, 2]> (h, w, c)
    }"""
    weights = {"d": normal(16, 1, 3, 3), "w": normal(16, 16, 3, 3, seed=1), "c": normal(16, seed=2)}
    model, feed = build(text, weights), {"x": normal(1, 16, 9, 9, seed=4)}
    rounded = {}
    for name in ("d", "w"):
        scales = arithmetic.weight_scales(weights[name], 0)
        rounded[name] = arithmetic.dequantize_weight(arithmetic.quantize_weight(weights[name], scales, 0), scales, 0)
    expected = execute(build(text, weights | rounded), feed)[0]
    passed = QuantizeWeights(4, minimum_weights=0)
    passed(model)
    assert decision(passed.decisions, "b") == (True, "8 bits per channel: Conv has no 4-bit form")
    assert relative(execute(model, feed)[0], expected) < STEP
    assert relative(reference(model, feed)[0], expected) < STEP


GATHER = "g (int64[A, B] i) => (float[A, B, H] y) { [g] y = Gather (t, i) }"


def test_gathered_rows_are_scaled_after_and_keep_names() -> None:
    table = normal(100, 32) * np.linspace(0.1, 10, 100, dtype=np.float32)[:, None]
    model = build(GATHER, {"t": table})
    passed = QuantizeWeights(8)
    passed(model)
    assert decision(passed.decisions, "g") == (True, "8 bits per row")
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert not any(
        v.dtype == ir.DataType.FLOAT and v.const_value.size > 100
        for v in model.graph.initializers.values()
        if v.const_value
    )
    feed = {"i": np.array([[0, 99, -1], [5, 5, 7]])}
    scales = np.abs(table).max(axis=1, keepdims=True) / 127
    expected = (np.rint(table / scales) * scales)[feed["i"]]
    for outputs in (execute(model, feed), execute(model, feed, optimize=True), reference(model, feed)):
        np.testing.assert_allclose(outputs[0], expected, rtol=1e-6, atol=1e-7)
    assert node_named(model, "g").op_type == "Gather"


def test_gather_by_a_scalar_index() -> None:
    model = build("g (int64 i) => (float[H] y) { [g] y = Gather (t, i) }", {"t": normal(100, 32)})
    before = execute(model, {"i": np.array(3)})[0]
    QuantizeWeights(8)(model)
    assert relative(execute(model, {"i": np.array(3)})[0], before) < 0.01


TIED = """g (int64[A] i) => (float[A, V] y) {
    [embed] h = Gather (t, i)
    [flip] u = Transpose <perm = [1, 0]> (t)
    [head] y = MatMul (h, u)
}"""


def test_tied_embedding_is_stored_once() -> None:
    model, feed = build(TIED, {"t": normal(100, 64)}), {"i": np.array([3, 50])}
    before = execute(model, feed)[0]
    passed = QuantizeWeights(8)
    passed(model)
    assert all(d.quantized for d in passed.decisions)
    integers = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert len(integers) == 1
    for optimize in (False, True):
        assert relative(execute(model, feed, optimize=optimize)[0], before) < 0.02


@pytest.mark.parametrize("form", ["dequantize", "nbits"])
def test_tied_embedding_in_two_forms_is_split(form: Any) -> None:
    model, feed = build(TIED, {"t": normal(100, 64)}), {"i": np.array([3, 50])}
    table = normal(100, 64)
    QuantizeWeights(4, form=form)(model)
    scales = np.abs(table).max(axis=1, keepdims=True) / 127
    rows = (np.rint(table / scales) * scales)[feed["i"]]
    expected = rows @ dequantized(table.T.copy(), bits=4, size=32, symmetric=False)
    assert relative(execute(model, feed)[0], expected) < STEP
    assert "t" not in model.graph.initializers
    assert "Transpose" not in ops(model) or form == "dequantize"


def test_transpose_that_two_products_read_is_dequantized_once() -> None:
    text = """g (float[M, 64] x, float[M, 64] z) => (float[M, N] y, float[M, N] v) {
        u = Transpose (w)
        [a] y = MatMul (x, u)
        [b] v = MatMul (z, u)
    }"""
    model = build(text, {"w": normal(48, 64)})
    feed = X | {"z": normal(5, 64, seed=2)}
    before = execute(model, feed)
    QuantizeWeights(8)(model)
    assert ops(model).count("DequantizeLinear") == 1
    for a, b in zip(execute(model, feed), before, strict=True):
        assert relative(a, b) < 0.01


def test_weight_that_somebody_reads_in_float_stays() -> None:
    text = """g (float[M, 64] x) => (float[M, N] y, float[A, B] z) {
        [a] y = MatMul (x, w)
        [b] z = Neg (w)
    }"""
    model = build(text, {"w": normal(64, 48)})
    passed = QuantizeWeights(8)
    assert not passed(model).modified
    assert decision(passed.decisions, "a") == (False, "its weight is also read by b, which stays float")


def test_excluding_one_reader_keeps_the_weight_of_both() -> None:
    text = """g (float[M, 64] x) => (float[M, N] y, float[M, N] z) {
        [a] y = MatMul (x, w)
        [b] z = MatMul (x, w)
    }"""
    model = build(text, {"w": normal(64, 48)})
    passed = QuantizeWeights(8, exclude=frozenset({"b"}))
    assert not passed(model).modified
    assert decision(passed.decisions, "a")[1] == "its weight is also read by b, which stays float"
    assert decision(passed.decisions, "b") == (False, "excluded")


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        (
            "g (float[M, K] x, float[K, N] w) => (float[M, N] y) { [n] y = MatMul (x, w) }",
            {},
            "its weight is not a constant second input",
        ),
        (
            "g (float[M, 8] x) => (float[M, N] y) { [n] y = MatMul (x, w) }",
            {"w": normal(8, 8)},
            "it has fewer than 1024 weights",
        ),
        (
            "g (float[2, M, 64] x) => (float[2, M, N] y) { [n] y = MatMul (x, w) }",
            {"w": normal(2, 64, 48)},
            "its weight is not a matrix",
        ),
        (
            "g (float16[M, 64] x) => (float16[M, N] y) { [n] y = MatMul (x, w) }",
            {"w": normal(64, 48).astype(np.float16)},
            "its weight is not float32",
        ),
        (
            "g (float16[M, N] x, int64[B] i) => (float16[B, N] y) { [n] y = Gather (w, i) }",
            {"w": normal(64, 48).astype(np.float16)},
            "its weight is not float32",
        ),
        (
            "g (int64[B] i) => (float[A, B] y) { [n] y = Gather <axis = 1> (w, i) }",
            {"w": normal(64, 48)},
            "it does not gather rows",
        ),
        (
            "g (int64[B] i) => (float[A, N] y, float[64, 48] w) { [n] y = Gather (w, i) }",
            {"w": normal(64, 48)},
            "its weight is an output of the model",
        ),
        (
            "g (float[1, 64, 5] x) => (float[1, 8, P] y) { [n] y = ConvTranspose (x, w) }",
            {"w": normal(64, 8, 3)},
            "it has no weight-only form",
        ),
        (
            "g (int64 d) => (float[M, N] y) { [n] y = Gemm (w, w) }",
            {"w": normal(64, 64)},
            "its weight is also another of its inputs",
        ),
    ],
)
def test_refusals(text: str, weights: dict[str, Array], reason: str) -> None:
    model = build(text, weights, check=False)
    passed = QuantizeWeights(8)
    assert not passed(model).modified
    assert decision(passed.decisions, "n") == (False, reason)


def test_transposed_weight_that_is_an_output_stays() -> None:
    text = "g (float[M, 64] x) => (float[M, N] y, float[64, 48] u) { u = Transpose (w) [n] y = MatMul (x, u) }"
    passed = QuantizeWeights(8)
    assert not passed(build(text, {"w": normal(48, 64)})).modified


def test_integer_gathers_are_not_reported() -> None:
    model = build("g (int64[B] i) => (int64[B] y) { [n] y = Gather (t, i) }", {"t": np.arange(2000)})
    passed = QuantizeWeights(8)
    assert not passed(model).modified
    assert passed.decisions == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "4 or 8 bits"),
        ({"block_size": 24}, "power of two"),
        ({"block_size": 8}, "at least 16"),
        ({"form": "packed"}, "form must be"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizeWeights(**options)


def test_old_opset_is_refused() -> None:
    model = build(MATMUL, {"w": normal(64, 48)})
    model.graph.opset_imports[""] = 17
    with pytest.raises(ir.passes.PreconditionError, match="opset 17"):
        QuantizeWeights(8)(model)


@pytest.mark.parametrize("options", [{"bits": 8}, {"bits": 4}, {"bits": 4, "form": "nbits"}])
def test_second_run_changes_nothing(options: dict[str, Any]) -> None:
    model = build(TIED, {"t": normal(100, 64)})
    QuantizeWeights(**options)(model)
    before = ir.to_proto(model).SerializeToString()
    assert not QuantizeWeights(**options)(model).modified
    assert ir.to_proto(model).SerializeToString() == before


def test_weights_in_subgraphs_are_taken() -> None:
    text = """g (float[M, 64] x, bool c) => (float[M, 48] y) {
        [if] y = If (c) <
            then_branch = t () => (float[M, 48] a) { [inner] a = MatMul (x, w) },
            else_branch = e () => (float[M, 48] b) { [other] b = MatMul (x, v) }
        >
    }"""
    model = build(text, {"w": normal(64, 48), "v": normal(64, 48, seed=1)}, check=False)
    feed = X | {"c": np.array(True)}
    before = execute(model, feed)[0]
    passed = QuantizeWeights(8)
    assert passed(model).modified
    assert decision(passed.decisions, "inner")[0] and decision(passed.decisions, "other")[0]
    assert relative(execute(model, feed)[0], before) < 0.01
