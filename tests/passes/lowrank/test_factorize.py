"""Graphs before and after, in ONNX Runtime: with factors of full rank nothing but rounding may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress.passes.lowrank import FactorizeLinear, Factors, decompose
from onnxcompress.passes.prune.layers import find_layers, layer_nodes, to_matrix, weight_of
from onnxcompress.runtime.session import open_session, run
from tests.models import with_initializers

Array = np.ndarray[Any, Any]

GRAPHS = {
    "MatMul": ("MatMul (x, w)", "float[B, 5, 12]", "float[B, 5, 9]", (3, 5, 12), (12, 9), None),
    "Gemm": ("Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", "float[B, 12]", "float[B, 9]", (3, 12), (12, 9), (9,)),
    "Gemm transposed": ("Gemm <transB = 1> (x, w)", "float[B, 12]", "float[B, 9]", (3, 12), (9, 12), None),
    "Conv 1x1": (
        "Conv <strides = [2, 2], pads = [1, 0, 1, 2]> (x, w, b)",
        "float[B, 12, 7, 8]", "float[B, 9, h, v]", (2, 12, 7, 8), (9, 12, 1, 1), (9,),
    ),
    "Conv 3x2": (
        "Conv <kernel_shape = [3, 2], strides = [1, 2], dilations = [2, 1], pads = [1, 0, 2, 1]> (x, w, b)",
        "float[B, 4, 9, 8]", "float[B, 9, h, v]", (2, 4, 9, 8), (9, 4, 3, 2), (9,),
    ),
    "Conv padded by itself": (
        'Conv <auto_pad = "SAME_LOWER", strides = [2, 1]> (x, w)',
        "float[B, 4, 9, 8]", "float[B, 9, h, v]", (2, 4, 9, 8), (9, 4, 2, 2), None,
    ),
    "Conv 1d": ("Conv <pads = [2, 0]> (x, w)", "float[B, 4, 9]", "float[B, 9, h]", (2, 4, 9), (9, 4, 3), None),
}  # fmt: skip


def graph(kind: str) -> tuple[ir.Model, dict[str, Array]]:
    """A model of one layer named `layer`, and a feed."""
    node, before, after, shape, weight, bias = GRAPHS[kind]
    rng = np.random.default_rng(0)
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    one ({before} x) => ({after} y) {{
        [layer] y = {node}
    }}
    """
    arrays = {"w": rng.normal(size=weight).astype(np.float32)}
    if bias is not None:
        arrays["b"] = rng.normal(size=bias).astype(np.float32)
    return with_initializers(ir.from_onnx_text(text), arrays), {"x": rng.normal(size=shape).astype(np.float32)}


def factors_of(model: ir.Model, rank: int | None = None) -> dict[str, Factors]:
    found = {}
    for layer, node in layer_nodes(model, find_layers(model)[0]):
        spectrum = decompose(to_matrix(weight_of(model, layer), node))
        found[layer.name] = spectrum.factors(rank or len(spectrum.values))
    return found


def checked(model: ir.Model) -> None:
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize("kind", GRAPHS)
def test_full_rank_computes_the_same(kind: str) -> None:
    model, feed = graph(kind)
    expected = run(open_session(model), feed)[0]
    assert FactorizeLinear(factors_of(model))(model).modified
    checked(model)
    found = run(open_session(model), feed)[0]
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    first, second = model.graph
    assert (first.name, second.name) == ("layer/first", "layer")
    assert first.op_type == second.op_type
    assert "w" not in model.graph.initializers


@pytest.mark.parametrize("kind", GRAPHS)
def test_lower_rank_computes_with_the_product_of_the_factors(kind: str) -> None:
    """Independent of the new graph: the original one with W replaced by the product."""
    model, feed = graph(kind)
    factors = factors_of(model, 3)
    single = model.clone()
    layer, node = next(layer_nodes(single, find_layers(single)[0]))
    product = factors["layer"].second @ factors["layer"].first
    if node.op_type == "Conv":
        shape = weight_of(single, layer).shape
        product = np.moveaxis(product.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    elif not node.attributes.get_int("transB", 0):
        product = product.T
    single.graph.initializers["w"].const_value = ir.tensor(np.ascontiguousarray(product))
    FactorizeLinear(factors)(model)
    checked(model)
    expected, found = (run(open_session(m), feed)[0] for m in (single, model))
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None) < sum(
        v.const_value.size for v in single.graph.initializers.values() if v.const_value is not None
    )  # fmt: skip


def test_the_value_in_between_has_a_true_shape() -> None:
    model, _ = graph("Conv 1x1")
    FactorizeLinear(factors_of(model, 3))(model)
    assert [str(dim) for dim in model.graph[0].outputs[0].shape or ()] == ["B", "3", "h", "v"]


def test_nothing_to_do_changes_nothing() -> None:
    model, _ = graph("MatMul")
    assert not FactorizeLinear({})(model).modified
    assert len(model.graph) == 1


def test_new_names_are_free() -> None:
    model, feed = graph("MatMul")
    model.graph.inputs[0].name = "w/first"
    expected = run(open_session(model), {"w/first": feed["x"]})[0]
    FactorizeLinear(factors_of(model))(model)
    checked(model)
    np.testing.assert_allclose(run(open_session(model), {"w/first": feed["x"]})[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("other", ((3, 12), (9, 3)), "'other' is not a layer"),
        ("layer", ((3, 11), (9, 3)), "do not fit the weight of 'layer'"),
        ("layer", ((3, 12), (9, 4)), "do not fit the weight of 'layer'"),
    ],
)
def test_factors_that_do_not_fit_raise(
    name: str, shapes: tuple[tuple[int, int], tuple[int, int]], message: str
) -> None:
    model, _ = graph("MatMul")
    with pytest.raises(ValueError, match=message):
        FactorizeLinear({name: Factors(np.ones(shapes[0], np.float32), np.ones(shapes[1], np.float32))})(model)


def test_groups_are_refused() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    grouped (float[B, 4, 5, 5] x) => (float[B, 6, 5, 5] y) { [layer] y = Conv <group = 2> (x, w) }
    """
    model = with_initializers(ir.from_onnx_text(text), {"w": np.ones((6, 2, 1, 1), np.float32)})
    with pytest.raises(ValueError, match="convolution of 2 groups"):
        FactorizeLinear({"layer": Factors(np.ones((1, 2), np.float32), np.ones((6, 1), np.float32))})(model)
