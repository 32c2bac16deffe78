"""Recorded shapes are true after optimizing, and none are added where none were."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from onnxcompress.optimizer import optimize
from onnxcompress.passes.simplify import InferShapes
from tests.passes.simplify.models import parse, run


def test_a_stale_shape_does_not_survive() -> None:
    model = parse(
        "g (float[n,3] x) => (float[n,3] y) <float[7,7] a, float[7,7] b> { a = Exp(x)\n b = Neg(a)\n y = Relu(b) }"
    )
    result = optimize(model)
    shapes = {o.name: o.shape for node in result.graph for o in node.outputs}
    assert shapes["a"] == ir.Shape(["n", 3]) and shapes["b"] == ir.Shape(["n", 3])


def test_a_stale_shape_is_not_believed() -> None:
    """The reshape looks like a no-op to whoever believes what is recorded of `a`."""
    model = parse(
        "g (float[n,4] x) => (float[m,2] y) <float[m,2] a> {"
        " a = Exp(x)\n s = Constant<value_ints=[-1,2]>()\n y = Reshape(a, s) }"
    )
    feeds = {"x": np.ones((3, 4), np.float32)}
    assert run(optimize(model), feeds)[0].shape == (6, 2)


def test_a_declared_output_shape_that_contradicts_is_replaced() -> None:
    model = parse("g (float[n,3] x) => (float[n] y) { y = Relu(x) }")
    result = optimize(model)
    assert result.graph.outputs[0].shape == ir.Shape(["n", 3])
    onnx.checker.check_model(ir.to_proto(result), full_check=True)


def test_declared_names_of_output_dimensions_stay() -> None:
    model = parse("g (float[n,3] x) => (int64[count,2] y) { m = Relu(x)\n i = NonZero(m)\n y = Transpose(i) }")
    assert optimize(model).graph.outputs[0].shape == ir.Shape(["count", 2])


def test_no_shapes_are_added_where_none_were() -> None:
    model = parse("g (float[n,3] x) => (float[n,3] y) { a = Exp(x)\n b = Neg(a)\n y = Relu(b) }")
    assert not ir.to_proto(optimize(model)).graph.value_info


def test_unnamed_input_dimensions_stay_unnamed() -> None:
    model = parse("g (float[?,3] x) => (float[?,3] y) { a = Exp(x)\n y = Relu(a) }".replace("?", "n"))
    for value in (model.graph.inputs[0], model.graph.outputs[0]):
        value.shape = ir.Shape([None, 3])
    result = optimize(model)
    assert result.graph.inputs[0].shape == ir.Shape([None, 3])
    assert result.graph.outputs[0].shape == ir.Shape([None, 3])


def test_ops_of_onnx_runtime_are_inferred_by_their_stand_in() -> None:
    body = "a = com.microsoft.SkipLayerNormalization(x, x, s, s)\n y = Relu(a)"
    model = parse(f"g (float[n,3,4] x, float[4] s) => (float[n,3,4] y) {{ {body} }}", domains=', "com.microsoft" : 1')
    model.graph.outputs[0].shape = None
    InferShapes()(model)
    assert model.graph[0].outputs[0].shape == ir.Shape(["n", 3, 4])
    assert model.graph.outputs[0].shape == ir.Shape(["n", 3, 4])
    assert model.graph[0].op_type == "SkipLayerNormalization"


def test_group_normalization_is_inferred_though_onnx_infers_nothing_for_it() -> None:
    body = "a = GroupNormalization<num_groups=2>(x, s, s)\n b = Relu(a)\n y = Relu(b)"
    model = parse(f"g (float[n,4,3] x, float[4] s) => (float[n,4,3] y) {{ {body} }}")
    model.graph.outputs[0].shape = None
    InferShapes()(model)
    assert [node.outputs[0].shape for node in model.graph] == [ir.Shape(["n", 4, 3])] * 3
