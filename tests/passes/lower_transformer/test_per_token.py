"""DynamicRows: which tensors are rounded by rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.transformer import DynamicRows, LowerLinears
from tests.passes.lower_transformer.graphs import K, applied, graph, ran, reasons

READ = "q = QuantizeLinear (x, x_s, x_z) d = DequantizeLinear (q, x_s, x_z)"
ROUND = "z = QuantizeLinear (a, x_s, x_z) e = DequantizeLinear (z, x_s, x_z)"


def mlp(activation: str, outputs: str = f"float[B, S, {K}] y", tail: str = "y = MatMul (e, v)") -> ir.Model:
    made = graph(
        f"float[B, S, {K}] x", outputs,
        f"{READ} v = DequantizeLinear <axis = 1> (square, k_s, k_z) [up] u = MatMul (d, v) {activation} {ROUND} {tail}",
    )  # fmt: skip
    LowerLinears()(made)
    return made


def dynamic(made: ir.Model) -> list[int]:
    return [n.attributes.get_int("dynamic", 0) for n in made.graph if n.op_type == "QLinear"]


def test_between_two_layers_around_gelu_or_silu() -> None:
    for activation in ("a = Gelu (u)", "g = Sigmoid (u) a = Mul (u, g)"):
        made = mlp(activation)
        done = applied(DynamicRows(), made)
        assert dynamic(done) == [1, 0]
        feed = {"x": np.random.default_rng(0).normal(size=(2, 3, K)).astype(np.float32)}
        first, second = (n for n in done.graph if n.op_type == "QLinear")
        assert list(second.inputs[:3]) == [first.outputs[0], first.outputs[2], first.outputs[3]]
        # 0.02 is coarser than the rows' own steps, and clips
        assert (
            np.corrcoef(ran(done, feed)[0].ravel(), ran(applied(DynamicRows(()), made), feed)[0].ravel())[0, 1] > 0.98
        )


def test_others_only_when_named() -> None:
    made = mlp("a = Relu (u)")
    assert dynamic(applied(DynamicRows(), made)) == [0, 0]
    assert dynamic(applied(DynamicRows({"up"}), made)) == [1, 0]
    assert dynamic(applied(DynamicRows({"down"}), made)) == [0, 0]


@pytest.mark.parametrize(
    ("tail", "outputs", "reason"),
    [
        ("y = MatMul (e, v) w = MatMul (e, v)", f"float[B, S, {K}] y, float[B, S, {K}] w", "one linear layer alone"),
        ("y = Relu (e)", f"float[B, S, {K}] y", "one linear layer alone"),
    ],
)
def test_tensors_that_are_read_otherwise_stay(tail: str, outputs: str, reason: str) -> None:
    step = DynamicRows()
    assert dynamic(applied(step, mlp("a = Gelu (u)", outputs, tail)))[0] == 0
    assert any(reason in found for found in reasons(step))


def test_a_float_result_stays() -> None:
    made = graph(
        f"float[B, S, {K}] x", f"float[B, S, {K}] a",
        f"{READ} v = DequantizeLinear <axis = 1> (square, k_s, k_z) u = MatMul (d, v) a = Gelu (u)",
    )  # fmt: skip
    LowerLinears()(made)
    step = DynamicRows()
    assert dynamic(applied(step, made)) == [0]
    assert set(reasons(step)) == {"its result is float, or rounded by rows already"}
