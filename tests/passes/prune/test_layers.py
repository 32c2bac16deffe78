"""Layers and their [N, K] view."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.prune import Layer, find_layers, from_matrix, layer_nodes, to_matrix, weight_of
from tests.passes.quantize.models import build, execute, node_named, normal

Array = np.ndarray[Any, Any]

ALL = """agraph (float[2,4,6,6] x, float[6,8] p) => (float[2,6] y, float[6,6] q) {
    [conv] a = Conv <pads = [1,1,1,1]> (x, w1, b1)
    [depthwise] b = Conv <group = 8, pads = [1,1,1,1]> (a, w2)
    [grouped] c = Conv <group = 2> (b, w3)
    [pool] d = GlobalAveragePool (c)
    [flat] e = Flatten (d)
    [linear] f = MatMul (e, w4)
    [head] g = Gemm <transB = 1> (f, w5)
    [back] h = Gemm (g, w6)
    [turned] i = Gemm <transA = 1> (w7, w8)
    [other] q = MatMul (i, w9)
    [product] j = MatMul (p, q)
    [more] k = MatMul (w10, h)
    y = Identity (h)
}"""


def everything() -> ir.Model:
    weights = {
        "w1": normal(8, 4, 3, 3), "b1": normal(8), "w2": normal(8, 1, 3, 3), "w3": normal(12, 4, 1, 1),
        "w4": normal(12, 10), "w5": normal(5, 10), "w6": normal(5, 6),
        "w7": normal(3, 8), "w8": normal(3, 6), "w9": normal(6, 6), "w10": normal(2, 2),
    }  # fmt: skip
    return build(ALL, weights, check=False)


def test_layers_and_reasons() -> None:
    layers, refusals = find_layers(everything())
    assert layers[:5] == [
        Layer("conv", "Conv", "w1", "x", 36, 8),
        Layer("grouped", "Conv", "w3", "b", 4, 12, 2),
        Layer("linear", "MatMul", "w4", "e", 12, 10),
        Layer("head", "Gemm", "w5", "f", 10, 5),
        Layer("back", "Gemm", "w6", "g", 5, 6),
    ]
    reasons = {refusal.name: refusal.reason for refusal in refusals}
    assert reasons["depthwise"].startswith("it is depthwise")
    assert reasons["turned"] == "Gemm with transA"
    assert reasons["product"] == "both its factors are activations"
    assert reasons["more"] == "its weight is not a constant second input"


@pytest.mark.parametrize(
    ("text", "weight", "reason"),
    [
        ("[a] y = MatMul (x, w)\n[b] z = MatMul (x, w)", normal(4, 4), "its weight is shared with"),
        ("[a] y = MatMul (x, w)\n[b] z = Gemm (w, w)", normal(4, 4), "its weight is shared with b"),
        ("[a] y = MatMul (x, w)\nz = Identity (x)", normal(1, 4, 4), "its weight is not a matrix"),
        ("[a] y = MatMul (x, w)\nz = Identity (x)", normal(4), "its weight is not a matrix"),
        ("[a] y = MatMul (x, w)\nz = Identity (x)", normal(4, 0), "its weight is empty"),
        ("[a] y = MatMul (x, w)\nz = Identity (w)", normal(4, 4), "its weight is shared with"),
        ("[a] y = Einsum <equation = \"ab,bc->ac\"> (x, w)\nz = Identity (x)", normal(4, 4), "Einsum has no masks"),
    ],
)  # fmt: skip
def test_weights_that_are_refused(text: str, weight: Array, reason: str) -> None:
    model = build(f"agraph (float[4,4] x) => (float[4,N] y, float[4,M] z) {{ {text} }}", {"w": weight}, check=False)
    layers, refusals = find_layers(model)
    assert not layers
    assert refusals[0].reason.startswith(reason)


def test_weights_that_others_may_set_or_see_are_refused() -> None:
    for place in ("inputs", "outputs"):
        model = build("agraph (float[4,4] x) => (float[4,4] y) { [a] y = MatMul (x, w) }", {"w": normal(4, 4)})
        getattr(model.graph, place).append(model.graph.initializers["w"])
        assert find_layers(model)[1][0].reason == "its weight is an input or output of the model"
    doubles = build(
        "agraph (double[4,4] x) => (double[4,4] y) { [a] y = MatMul (x, w) }", {"w": np.ones((4, 4), np.float64)}
    )
    assert find_layers(doubles)[1][0].reason == "its weight is not float32"


def test_subgraphs_are_refused() -> None:
    text = """agraph (float[4,4] x, bool c) => (float[4,4] y) {
        [if] y = If (c) <
            then_branch = g1 () => (float[4,4] a) { [inner] a = MatMul (x, w) },
            else_branch = g2 () => (float[4,4] b) { b = Identity (x) }
        >
    }"""
    layers, refusals = find_layers(build(text, {"w": normal(4, 4)}))
    assert not layers
    assert [(r.name, r.reason) for r in refusals] == [("inner", "it lies in a subgraph")]


def test_the_view_is_what_the_design_says() -> None:
    model = everything()
    conv, weight = node_named(model, "conv"), normal(8, 4, 3, 3)
    matrix = to_matrix(weight, conv)
    assert matrix.shape == (8, 36)
    for n, c, ky, kx in [(0, 0, 0, 0), (3, 1, 2, 0), (7, 3, 1, 2)]:
        assert matrix[n, (ky * 3 + kx) * 4 + c] == weight[n, c, ky, kx]
    assert np.array_equal(to_matrix(normal(12, 10), node_named(model, "linear")), normal(12, 10).T)
    assert np.array_equal(to_matrix(normal(5, 10), node_named(model, "head")), normal(5, 10))
    assert np.array_equal(to_matrix(normal(5, 6), node_named(model, "back")), normal(5, 6).T)


def test_the_way_back() -> None:
    model = everything()
    layers, _ = find_layers(model)
    for layer, node in layer_nodes(model, layers):
        weight = weight_of(model, layer)
        matrix = to_matrix(weight, node)
        assert matrix.shape == (layer.outputs, layer.inputs)
        back = from_matrix(matrix, node, weight.shape)
        assert np.array_equal(back, weight) and back.flags.c_contiguous


def test_layers_of_another_model_are_refused() -> None:
    layers, _ = find_layers(everything())
    other = build("agraph (float[4,12] e) => (float[4,10] f) { [else] f = MatMul (e, w4) }", {"w4": normal(12, 10)})
    with pytest.raises(ValueError, match="no layer 'linear' with the weight 'w4'"):
        list(layer_nodes(other, [layer for layer in layers if layer.weight == "w4"]))


def test_pruned_rows_of_the_view_are_pruned_outputs() -> None:
    model = build(
        "agraph (float[1,4,6,6] x) => (float[1,8,4,4] y) { [conv] y = Conv (x, w) }", {"w": normal(8, 4, 3, 3)}
    )
    (layer,), _ = find_layers(model)
    ((_, node),) = layer_nodes(model, [layer])
    matrix = to_matrix(weight_of(model, layer), node).copy()
    matrix[5] = 0
    model.graph.initializers["w"].const_value = ir.tensor(from_matrix(matrix, node, (8, 4, 3, 3)), name="w")
    (y,) = execute(model, {"x": normal(1, 4, 6, 6, seed=1)})
    assert not y[:, 5].any() and all(y[:, i].any() for i in range(8) if i != 5)
