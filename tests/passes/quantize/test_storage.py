"""Weights outside memory: read when the model is saved, one at a time, and let go of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress import model_io
from onnxcompress.model_io import load_model, save_model
from onnxcompress.passes.quantize import QuantizeWeights, storage
from tests.passes.quantize.models import build, execute, normal

MATMUL = "g (float[M, 64] x) => (float[M, N] y) { [m] y = MatMul (x, w) }"
X = {"x": normal(5, 64, seed=9)}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("options", [{"bits": 8}, {"bits": 4}, {"bits": 4, "form": "nbits"}])
def test_external_weights_are_read_on_save_only(tmp_path: Path, options: dict[str, Any], in_place: bool) -> None:
    source = tmp_path / "float.onnx"
    save_model(build(MATMUL, {"w": normal(64, 48)}), source, external_data=True)
    expected = build(MATMUL, {"w": normal(64, 48)})
    QuantizeWeights(**options)(expected)
    model = load_model(source)
    weight = model.graph.initializers["w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    QuantizeWeights(**options)(model)
    assert weight.raw is None, "the pass itself must not read the weight"
    assert all(isinstance(v.const_value, ir.LazyTensor) for v in model.graph.initializers.values())
    target = source if in_place else tmp_path / "quantized.onnx"
    save_model(model, target, external_data=True)
    assert weight.raw is None, "it must be let go of"
    np.testing.assert_array_equal(execute(load_model(target), X)[0], execute(expected, X)[0])


def test_large_weights_are_worked_on_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sliced = build(MATMUL, {"w": normal(64, 48)}), build(MATMUL, {"w": normal(64, 48)})
    QuantizeWeights(8)(whole)
    monkeypatch.setattr(storage, "SLICE_ELEMENTS", 300)
    QuantizeWeights(8)(sliced)
    np.testing.assert_array_equal(execute(sliced, X)[0], execute(whole, X)[0])


def test_weight_that_somebody_looks_at_is_not_torn_away(tmp_path: Path) -> None:
    source = tmp_path / "float.onnx"
    save_model(build(MATMUL, {"w": normal(64, 48)}), source, external_data=True)
    model = load_model(source)
    seen = model.graph.initializers["w"].const_value.numpy()  # type: ignore[union-attr]
    QuantizeWeights(8)(model)
    execute(model, X)
    np.testing.assert_array_equal(seen, normal(64, 48))


@pytest.mark.parametrize(("streamed", "external"), [(True, True), (False, False)])
def test_models_with_tensors_outside_memory_are_saved_outside_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool, external: bool
) -> None:
    monkeypatch.setattr(model_io, "STREAMED_THRESHOLD", 1000)
    save_model(build(MATMUL, {"w": normal(64, 48)}), tmp_path / "float.onnx", external_data=streamed)
    model = load_model(tmp_path / "float.onnx")
    QuantizeWeights(8)(model)
    save_model(model, tmp_path / "quantized.onnx")
    assert any(tmp_path.glob("quantized.onnx.*.data")) == external


def test_second_quantization_of_a_lazy_weight_stays_lazy() -> None:
    made = []

    def make() -> ir.Tensor[Any]:
        made.append(1)
        return ir.Tensor(normal(64, 48))

    model = build(MATMUL, {"w": normal(64, 48)})
    weight = ir.LazyTensor(make, ir.DataType.FLOAT, ir.Shape([64, 48]), name="w")
    model.graph.initializers["w"].const_value = weight
    QuantizeWeights(8)(model)
    assert not made
    execute(model, X)
    assert made
