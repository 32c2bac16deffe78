"""Making masks of models and applying them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.prune import ApplyMasks, Layer, find_layers, grid_of, layer_nodes, make_masks, to_matrix
from onnxcompress.passes.prune.patterns import follows, unit_sums
from tests.passes.quantize.models import build, execute, normal

Array = np.ndarray[Any, Any]

TEXT = """agraph (float[2,8,6,6] x) => (float[2,20] y) {
    [conv] a = Conv <pads = [1,1,1,1]> (x, w1)
    [act] b = Relu (a)
    [pool] c = GlobalAveragePool (b)
    [flat] d = Flatten (c)
    [up] e = MatMul (d, w2)
    [down] y = Gemm <transB = 1> (e, w3)
}"""


def network() -> tuple[ir.Model, list[Layer], dict[str, Array]]:
    weights = {"w1": normal(16, 8, 3, 3), "w2": normal(16, 32, seed=1), "w3": normal(20, 32, seed=2)}
    model = build(TEXT, weights)
    return model, find_layers(model)[0], {name: weight**2 for name, weight in weights.items()}


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block1x4", "block4x4", "block16x4"])
def test_masks_lie_in_the_weights_own_layout(pattern: str) -> None:
    model, layers, saliency = network()
    masks = make_masks(model, layers, saliency, pattern, 0.5)
    for layer, node in layer_nodes(model, layers):
        assert masks[layer.weight].shape == saliency[layer.weight].shape
        matrix = to_matrix(masks[layer.weight], node)
        assert follows(matrix, grid_of(pattern))
        gone = ~(unit_sums(matrix.astype(int), grid_of(pattern)) > 0)
        assert gone.sum() == (0 if pattern == "2:4" else round(0.5 * gone.size))


def test_allocations() -> None:
    model, layers, saliency = network()
    saliency["w2"] = saliency["w2"] * 100
    uniform = make_masks(model, layers, saliency, "unstructured", 0.4)
    assert [round(1 - float(mask.mean()), 2) for mask in uniform.values()] == [0.4, 0.4, 0.4]
    spread = make_masks(model, layers, saliency, "unstructured", 0.4, "global")
    total = sum(int((~mask).sum()) for mask in spread.values())
    assert total == round(0.4 * sum(mask.size for mask in spread.values()))
    assert spread["w2"].mean() > 0.8 > spread["w1"].mean()
    given = make_masks(model, layers, saliency, "block4x4", ratios={"conv": 0.25, "down": 0.75})
    assert {name: 1 - float(mask.mean()) for name, mask in given.items()} == {"w1": 0.25, "w3": 0.75}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "unstructured"}, "needs a sparsity"),
        ({"pattern": "unstructured", "sparsity": 1.0}, "at least 0 and below 1"),
        ({"pattern": "unstructured", "ratios": {"conv": -0.1}}, "at least 0 and below 1"),
        ({"pattern": "2:4", "sparsity": 0.6}, "has a sparsity of 0.5"),
        ({"pattern": "2:4", "allocation": "global"}, "takes no allocation"),
        ({"pattern": "diagonal", "sparsity": 0.5}, "pattern must be one of"),
    ],
)
def test_arguments_that_do_not_go_together(arguments: dict[str, Any], message: str) -> None:
    model, layers, saliency = network()
    with pytest.raises(ValueError, match=message):
        make_masks(model, layers, saliency, **arguments)


def test_saliency_must_fit() -> None:
    model, layers, saliency = network()
    with pytest.raises(ValueError, match="'w3' is missing"):
        make_masks(model, layers, {**saliency, "w3": saliency["w3"].T}, "unstructured", 0.5)
    del saliency["w1"]
    with pytest.raises(ValueError, match="'w1' is missing"):
        make_masks(model, layers, saliency, "unstructured", 0.5)


def test_masked_weights_are_zero_and_the_others_what_they_were() -> None:
    model, layers, saliency = network()
    before = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    masks = make_masks(model, layers, saliency, "block4x4", 0.5)
    step = ApplyMasks(masks)
    assert step(model).modified
    assert not step(model).modified
    for name, mask in masks.items():
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        assert np.array_equal(tensor.numpy(), np.where(mask, before[name], 0))
        assert not np.signbit(tensor.numpy()[~mask]).any()
    assert execute(model, {"x": normal(2, 8, 6, 6)})[0].shape == (2, 20)


def test_masks_of_other_models_are_refused() -> None:
    model, _, _ = network()
    for masks in ({"absent": np.ones(3, bool)}, {"w2": np.ones((32, 16), bool)}):
        with pytest.raises(ValueError, match="no initializer"):
            ApplyMasks(masks)(model)
