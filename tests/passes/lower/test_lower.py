"""Lowering passes: what they match, that they change nothing but rounding, and that ONNX Runtime then runs int8."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxcompress.passes.lower import FuseIntegerLinear, FuseSiLU, KeepBiasSum, KeepResidualSum
from onnxcompress.runtime import open_session
from tests.models import with_initializers

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(3)
X = RNG.normal(size=(16, 64)).astype(np.float32)
ARRAYS: dict[str, Array] = {
    "xs": np.array(0.03, np.float32),
    "xz": np.array(128, np.uint8),
    "wq": RNG.integers(-127, 128, (64, 32)).astype(np.int8),
    "ws": RNG.uniform(0.001, 0.002, 32).astype(np.float32),
    "wz": np.zeros(32, np.int8),
    "bias": RNG.normal(size=32).astype(np.float32),
    "last": np.array([-1], np.int64),
    "row": RNG.normal(size=(1, 32)).astype(np.float32),
}


def linear(tail: str, rank: int = 2) -> ir.Model:
    """A QDQ MatMul with fixed shapes, and what comes after it."""
    shape = ", ".join(["1"] * (rank - 2) + ["16"])
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[{shape}, 64] x) => (float[{shape}, 32] y) {{
        xq = QuantizeLinear (x, xs, xz)
        xd = DequantizeLinear (xq, xs, xz)
        wd = DequantizeLinear <axis = 1> (wq, ws, wz)
        d = MatMul (xd, wd)
        {tail}
    }}"""
    model = with_initializers(ir.from_onnx_text(text), {n: a for n, a in ARRAYS.items() if n in text})
    for node in model.graph:
        if node.op_type == "MatMul":
            node.outputs[0].shape = ir.Shape([*([1] * (rank - 2)), 16, 32])
    return model


def kernels(model: ir.Model, path: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path / "run.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path / "run.onnx").graph.node)


def ran(model: ir.Model, x: Array) -> Array:
    (y,) = open_session(model, optimize=False).run(None, {"x": x})
    return np.asarray(y)


TAILS = {
    "constant": "y = Add (d, bias)",
    "constant first": "y = Add (bias, d)",
    "activation": "m = ReduceMean <keepdims = 1> (x, last) y = Add (d, m)",
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=list(TAILS))
@pytest.mark.parametrize("rank", [2, 3])
def test_a_bias_sum_keeps_the_product_int8(tail: str, rank: int, tmp_path: Path) -> None:
    model = linear(tail, rank)
    x = X.reshape((1,) * (rank - 2) + X.shape)
    before = ran(model, x)
    assert KeepBiasSum()(model).modified or (rank == 3 and "bias" not in tail)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_array_equal(ran(model, x), before)
    found = kernels(model, tmp_path)
    assert not found["Gemm"] and not found["MatMul"], found
    assert found["MatMulIntegerToFloat"] == 1
    assert not KeepBiasSum()(model).modified


@pytest.mark.parametrize("tail", TAILS.values(), ids=list(TAILS))
def test_without_it_onnxruntime_dequantizes_the_weight_on_every_run(tail: str, tmp_path: Path) -> None:
    """The trap that the pass is for: should this fail, the pass may go."""
    assert kernels(linear(tail), tmp_path)["Gemm"] == 1


def test_other_sums_are_left_alone() -> None:
    model = linear("y = Mul (d, bias)")
    assert not KeepBiasSum()(model).modified
    floats = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 21]> g (float[2, 2] x) => (float[2, 2] y)'
        " <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, 2}> { d = MatMul(x, w) y = Add(d, b) }"
    )
    assert not KeepBiasSum()(floats).modified


# -- one kernel for a linear layer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "left"),
    [
        ("y = Add (d, bias)", []),
        ("y = Add (bias, d)", []),
        ("y = Sum (d, bias)", []),
        ("y = Add (d, row)", ["Add"]),
        ("e = Relu (d) y = Add (e, bias)", ["Relu", "Add"]),
        ("e = Relu (d) f = Add (d, bias) y = Add (e, f)", ["Relu", "Add", "Add"]),
    ],
)
def test_a_linear_layer_becomes_one_kernel_with_its_bias(tail: str, left: list[str]) -> None:
    model = linear(tail)
    before = ran(model, X)
    assert FuseIntegerLinear()(model).modified
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "MatMulIntegerToFloat", *left]
    np.testing.assert_allclose(ran(model, X), before, rtol=1e-5, atol=1e-5)
    assert not FuseIntegerLinear()(model).modified


def test_an_output_of_the_graph_keeps_its_name() -> None:
    model = linear("y = Add (d, bias)")
    FuseIntegerLinear()(model)
    assert [value.name for value in model.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    "change",
    [
        ("xs", np.full(64, 0.03, np.float32), "DequantizeLinear <axis = 1> (xq, xs"),
        ("wq", RNG.integers(-9, 9, (64, 32)).astype(np.int32), None),
    ],
    ids=["activations per channel", "weights of 32 bits"],
)
def test_what_the_kernel_cannot_do_is_left(change: tuple[str, Array, str | None]) -> None:
    name, array, _ = change
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (uint8[16, 64] xq) => (float[16, 32] y) {
        xd = DequantizeLinear <axis = 1> (xq, xs, xz)
        wd = DequantizeLinear <axis = 1> (wq, ws, wz)
        y = MatMul (xd, wd)
    }"""
    arrays = {**ARRAYS, name: array}
    if name == "xs":
        arrays["xz"] = np.full(64, 128, np.uint8)
    if name == "wq":
        arrays["wz"] = np.zeros(32, np.int32)
    model = with_initializers(ir.from_onnx_text(text), {n: arrays[n] for n in ("xs", "xz", "wq", "ws", "wz")})
    assert not FuseIntegerLinear()(model).modified


# -- residual sums and SiLU -----------------------------------------------------------------------------------


def test_a_sum_before_a_normalization_stays_apart(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[1, 16, 64] x) => (float[1, 16, 64] y)
    { r = Relu (x) s = Add (x, r) n = LayerNormalization (s, gain, shift) y = Add (n, x) }"""
    model = with_initializers(ir.from_onnx_text(text), {name: np.ones(64, np.float32) for name in ("gain", "shift")})
    before = ran(model, X[None])
    assert kernels(model, tmp_path)["SkipLayerNormalization"] == 1
    assert KeepResidualSum()(model).modified
    assert [node.op_type for node in model.graph] == ["Relu", "Sum", "LayerNormalization", "Add"]
    assert not kernels(model, tmp_path)["SkipLayerNormalization"]
    np.testing.assert_array_equal(ran(model, X[None]), before)
    assert not KeepResidualSum()(model).modified


SILU = '<ir_version: 10, opset_import: ["": 21]> g (float[16, 64] x) => (float[16, 64] y) '


@pytest.mark.parametrize("factors", ["x, s", "s, x"])
def test_silu_becomes_one_kernel(factors: str) -> None:
    model = ir.from_onnx_text(SILU + f"{{ s = Sigmoid (x) y = Mul ({factors}) }}")
    before = ran(model, X)
    assert FuseSiLU()(model).modified
    assert [(node.domain, node.op_type) for node in model.graph] == [("com.microsoft", "QuickGelu")]
    np.testing.assert_allclose(ran(model, X), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "{ s = Sigmoid (x) r = Relu (x) y = Mul (r, s) }",
        "{ s = Sigmoid (x) m = Mul (x, s) y = Add (m, s) }",
        "{ s = Sigmoid (x) y = Add (x, s) }",
        "{ s = Sigmoid (x) y = Mul (s, s) }",
    ],
)
def test_what_is_no_silu_is_left(body: str) -> None:
    assert not FuseSiLU()(ir.from_onnx_text(SILU + body)).modified
