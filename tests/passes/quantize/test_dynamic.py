"""Dynamic quantization: close to float, standard operators only, and every node's fate is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxcompress.passes.quantize.dynamic import QuantizeDynamic
from onnxcompress.runtime import open_session
from tests.models import small_cnn, with_initializers

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(1)
HEADER = '<ir_version: 10, opset_import: ["": 21]> g (float[N, 32] x) => (float[N, 16] y) '
ARRAYS: dict[str, Array] = {
    "w": RNG.normal(size=(32, 16)).astype(np.float32),
    "wt": RNG.normal(size=(16, 32)).astype(np.float32),
    "b": RNG.normal(size=16).astype(np.float32),
}
X = RNG.normal(size=(5, 32)).astype(np.float32)


def model_of(body: str) -> ir.Model:
    used = {
        name: array
        for name, array in ARRAYS.items()
        if name in body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    return with_initializers(ir.from_onnx_text(HEADER + body), used)


@pytest.mark.parametrize(
    "body",
    ["{ y = MatMul (x, w) }", "{ y = Gemm (x, w, b) }", "{ y = Gemm <transB = 1> (x, wt, b) }", "{ y = Gemm (x, w) }"],
)
@pytest.mark.parametrize("limit", [127, 63])
def test_close_to_float_in_two_runtimes(body: str, limit: int) -> None:
    model = model_of(body)
    (expected,) = open_session(model).run(None, {"x": X})
    step = QuantizeDynamic(limit=limit)
    assert step(model).modified
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in model.graph} == {""}
    assert [node.op_type for node in model.graph][:2] == ["DynamicQuantizeLinear", "MatMulInteger"]
    (found,) = open_session(model).run(None, {"x": X})
    (reference,) = ReferenceEvaluator(proto).run(None, {"x": X})
    bound = 0.02 if limit == 127 else 0.03
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < bound
    np.testing.assert_allclose(found, np.asarray(reference), rtol=1e-4, atol=1e-4)
    weights = [
        v.const_value.numpy()
        for v in model.graph.initializers.values()
        if v.dtype == ir.DataType.INT8 and v.const_value is not None
    ]
    assert max(np.abs(w).max() for w in weights) == limit
    assert not {"w", "wt"} & set(model.graph.initializers), "the float weight is gone"


def test_readers_of_one_tensor_share_its_quantization() -> None:
    model = model_of("{ p = MatMul (x, w) q = Gemm (x, w, b) y = Add (p, q) }")
    (expected,) = open_session(model).run(None, {"x": X})
    QuantizeDynamic()(model)
    assert [node.op_type for node in model.graph].count("DynamicQuantizeLinear") == 1
    (found,) = open_session(model).run(None, {"x": X})
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.02


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{ y = Gemm <alpha = 2.0> (x, w, b) }", "alpha or beta other than 1"),
        ("{ t = Transpose (x) y = Gemm <transA = 1> (t, w, b) }", "transA"),
        ("{ t = Transpose (w) u = Transpose (t) y = MatMul (x, u) }", "both its factors are activations"),
    ],
)
def test_what_stays_float_says_why(body: str, reason: str) -> None:
    step = QuantizeDynamic()
    model = model_of(body)
    assert not step(model).modified
    (decision,) = step.decisions
    assert not decision.quantized and reason in decision.reason


def test_convolutions_and_excluded_nodes_stay_float() -> None:
    step = QuantizeDynamic()
    model = small_cnn()
    step(model)
    fates = {(decision.op, decision.quantized) for decision in step.decisions}
    assert fates == {("Conv", False), ("Gemm", True)}
    (name,) = [decision.name for decision in step.decisions if decision.quantized]
    excluding = QuantizeDynamic(frozenset({name}))
    assert not excluding(small_cnn()).modified
    assert [d.reason for d in excluding.decisions if d.name == name] == ["excluded"]
