"""Layers that do not become WeightOnlyLinear, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower import LowerWeightOnly
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.quantize.weight_only import QuantizeWeights
from tests.passes.lower.weight_only import MATMUL, lowered, quantized
from tests.passes.quantize.models import build, decision, normal, ops


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("[m] y = Gemm <transA = 1> (x, w)", {}, "Gemm with transA"),
        ("[m] y = Gemm <alpha = 2.0> (x, w)", {}, "Gemm with alpha or beta other than 1"),
        ("[m] y = Gemm (x, w, c)", {}, "its bias is not a constant vector"),
        ("[m] y = MatMul (x, w)", {"block_size": 16},
         "its blocks are of 16 inputs: there are kernels for 32, 64 and 128"),
    ],
)  # fmt: skip
def test_refusals(text: str, options: dict[str, Any], reason: str) -> None:
    model = build(f"g (float[64, 64] x, float[48] c) => (float[M, N] y) {{ {text} }}", {"w": normal(64, 48)})
    QuantizeWeights(4, minimum_weights=1, **options)(model)
    before = ops(model)
    copy, decisions = lowered(model)
    assert ops(copy) == before
    assert decision(decisions, "m") == (False, reason)


DQ = "d = DequantizeLinear {} (w, s) [m] y = MatMul (x, d)"


@pytest.mark.parametrize(
    ("body", "w", "s", "reason"),
    [
        (DQ.format("<axis = 0>"), (64, 48), (64,), "its scales are not one for each output"),
        (DQ.format("<axis = 1, block_size = 16>"), (64, 48), (64, 3), "its blocks do not lie along its inputs"),
        (DQ.format(""), (2, 64, 48), (), "its weight is not a matrix"),
        ("d = DequantizeLinear <axis = 1> (w, s) [m] h = MatMul (k, d) y = Add (h, c)", (64, 48), (48,),
         "its input is a constant"),
        ("t = Relu (c) d = DequantizeLinear <axis = 1> (w, t) [m] y = MatMul (x, d)", (64, 48), (),
         "its scales or zero points are not constants"),
        ("d = DequantizeLinear (w, s) [m] h = MatMul (x, d) e = ReduceSum (d) y = Add (h, e)", (64, 48), (),
         "its weight is also read by ReduceSum"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_refusals_of_dequantized_weights(body: str, w: Any, s: Any, reason: str) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.integers(-100, 100, w).astype(np.int8), "s": rng.uniform(0.01, 0.02, s).astype(np.float32)}
    weights |= {"k": normal(2, 64)} if "(k," in body else {}
    model = build(f"g (float[5, 64] x, float[48] c) => (float y) {{ {body} }}", weights, check=False)
    _, decisions = lowered_if_any(model)
    assert decision(decisions, "m") == (False, reason)


def lowered_if_any(model: ir.Model) -> tuple[ir.Model, list[Decision]]:
    step = LowerWeightOnly()
    assert not step(model).modified
    return model, step.decisions


def test_scales_that_are_no_numbers_are_refused() -> None:
    model = quantized(MATMUL, {"w": normal(64, 48)}, 8)
    scale = next(value for value in model.graph.initializers.values() if value.dtype == ir.DataType.FLOAT)
    scale.const_value = ir.tensor(np.full(48, np.inf, np.float32))
    assert decision(lowered_if_any(model)[1], "m") == (False, "its scales are not all finite")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda node: node.attributes.update(bits=ir.AttrInt64("bits", 2)), "its weight has 2 bits"),
        (lambda node: node.attributes.update(N=ir.AttrInt64("N", 47)), "its weight or scales have another size"),
        (lambda node: node.attributes.update(weight_prepacked=ir.AttrInt64("weight_prepacked", 1)),
         "its weight, scales or zero points are not constants in the usual layout"),
        (lambda node: (node.resize_inputs(5), node.replace_input_with(4, node.inputs[2])),
         "its inputs have an order of their own"),
        (lambda node: node.replace_input_with(3, node.inputs[2]), "its zero points are not integers"),
        (lambda node: node.replace_input_with(1, node.inputs[0]),
         "its weight, scales or zero points are not constants"),
    ],
)  # fmt: skip
def test_refusals_of_matmulnbits(change: Callable[[ir.Node], Any], reason: str) -> None:
    model = quantized(MATMUL, {"w": normal(64, 48)}, form="nbits")
    change(model.graph[0])
    quantized_too, why = decision(lowered_if_any(model)[1], "m")
    assert not quantized_too and why.startswith(reason)


def test_layers_in_float_and_quantized_layers_are_not_looked_at() -> None:
    text = """g (float[M, 64] x) => (float[M, N] y) {
        h = MatMul (x, w)
        q = QuantizeLinear (h, s, z)
        d = DequantizeLinear (q, s, z)
        v = DequantizeLinear (i, s)
        y = MatMul (d, v)
    }"""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {"w": normal(64, 48), "s": np.float32(0.02), "z": np.uint8(100)}
    weights["i"] = rng.integers(-9, 9, (48, 20)).astype(np.int8)
    assert lowered_if_any(build(text, weights))[1] == []


def test_an_older_opset_is_a_precondition() -> None:
    model = quantized(MATMUL, {"w": normal(64, 48)})
    model.graph.opset_imports[""] = 20
    with pytest.raises(ir.passes.PreconditionError, match="opset 20: convert the model to 21 first"):
        LowerWeightOnly()(model)
