"""Constants: lifted, folded, shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.optimizer import optimize
from onnxcompress.passes.simplify import FoldConstants, LiftConstants, ShareConstants
from tests.passes.simplify.models import assert_same, ops, parse, run


def initializer(name: str, data: np.ndarray[Any, Any]) -> ir.Value:
    tensor = ir.tensor(data, name=name)
    kind = ir.TensorType(tensor.dtype)
    return ir.Value(name=name, const_value=tensor, shape=ir.Shape(data.shape), type=kind)


@pytest.mark.parametrize(
    "attribute", ["value_int=2", "value_ints=[2]", "value_float=2.0", "value_floats=[2.0]", "value=float {2}"]
)
def test_constants_become_initializers_of_their_name(attribute: str) -> None:
    kind = "int64" if "int" in attribute else "float"
    model = parse(f"g ({kind}[n] x) => ({kind}[n] y) {{ two = Constant<{attribute}>()\n y = Mul(x, two) }}")
    result = model.clone()
    assert LiftConstants()(result).modified
    assert [node.op_type for node in result.graph] == ["Mul"]
    assert list(result.graph.initializers) == ["two"]
    assert not LiftConstants()(result).modified
    assert_same(model, result)


def test_a_constant_output_stays_a_node() -> None:
    model = parse("g (float[n] x) => (float y, float[n] z) { y = Constant<value_float=2.0>()\n z = Relu(x) }")
    result = optimize(model)
    assert sorted(node.op_type for node in result.graph) == ["Constant", "Relu"]
    assert_same(model, result)


def test_weights_that_are_inputs_as_ir_3_demanded_are_closed() -> None:
    model = parse("g (float[n,8] x, float[8,8] w) => (float[n,8] y) { y = MatMul(x, w) }", ir_version=3, opset=9)
    model.graph.inputs[1].const_value = ir.tensor(np.eye(8, dtype=np.float32), name="w")
    model.graph.register_initializer(model.graph.inputs[1])
    result = optimize(model)
    assert [v.name for v in result.graph.inputs] == ["x"]
    assert result.ir_version >= 10 and result.graph.opset_imports[""] == 21


def test_a_default_that_a_caller_may_override_is_no_constant() -> None:
    model = parse("g (float[n,8] x, float s) => (float[n,8] y) { t = Mul(x, s)\n y = Add(t, w) }")
    raise_to = model.graph.inputs[1]
    raise_to.const_value = ir.tensor(np.float32(1.0), name="s")
    model.graph.register_initializer(raise_to)
    weight = initializer("w", np.ones(8, np.float32))
    for node, index in [(n, i) for n in model.graph for i, v in enumerate(n.inputs) if v is not None and v.name == "w"]:
        node.replace_input_with(index, weight)
    model.graph.register_initializer(weight)
    result = optimize(model)
    assert [v.name for v in result.graph.inputs] == ["x", "s"]
    assert ops(result)["Mul"] == 1
    feeds = {"x": np.ones((1, 8), np.float32), "s": np.array(3, np.float32)}
    np.testing.assert_allclose(run(result, feeds)[0], 4)


def test_equal_constants_are_kept_once() -> None:
    model = parse("g (float[n,40] x) => (float[n,40] y) { t = Add(x, x)\n y = Mul(t, x) }")
    a, b = np.arange(40, dtype=np.float32), np.arange(40, dtype=np.float32)
    c = b.view(np.int32).copy()
    values = [initializer("a", a), initializer("b", b), initializer("c", c)]
    for value in values:
        model.graph.register_initializer(value)
    nodes = list(model.graph)
    nodes[0].replace_input_with(1, values[0])
    nodes[1].replace_input_with(1, values[1])
    assert ShareConstants()(model).modified
    assert set(model.graph.initializers) == {"a", "c"}, "the same bytes of another type are another constant"
    assert nodes[1].inputs[1] is values[0]
    assert not ShareConstants()(model).modified


def test_folding_stops_where_the_file_would_grow() -> None:
    small = parse(
        "g (float[10] x) => (float[10] y) { s = Constant<value_ints=[10]>()\n c = ConstantOfShape(s)\n y = Max(x, c) }"
    )
    assert ops(optimize(small)) == {"Max": 1}
    large = parse(
        "g (float[999] x) => (float[999] y) { s = Constant<value_ints=[999]>()\n c = ConstantOfShape(s)\n"
        " y = Max(x, c) }"
    )
    assert ops(optimize(large)) == {"ConstantOfShape": 1, "Max": 1}


def test_slices_of_weights_in_another_order_fold_as_one() -> None:
    """Each slice alone would copy the weights; together they replace them."""
    model = parse(
        """g (float[n,64] x) => (float[n,64] y) <float[64,64] w> {
            z = Constant<value_ints=[0]>()
            m = Constant<value_ints=[32]>()
            e = Constant<value_ints=[64]>()
            a = Slice(w, z, m, z)
            b = Slice(w, m, e, z)
            v = Concat<axis=0>(b, a)
            y = MatMul(x, v)
        }"""
    )
    weight = ir.tensor(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32), name="w")
    value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == "w")
    value.const_value = weight
    if not value.is_initializer():
        model.graph.register_initializer(value)
    result = optimize(model)
    assert ops(result) == {"MatMul": 1}
    assert_same(model, result)


def test_dequantized_weights_are_not_folded() -> None:
    model = parse(
        """g (float[n,64] x) => (float[n,64] y) {
            q = Constant<value=int8[2] {1, 2}>()
            s = Constant<value_float=0.5>()
            w = DequantizeLinear(q, s)
            i = Constant<value_ints=[2,1]>()
            v = Reshape(w, i)
            r = Constant<value_ints=[32,64]>()
            u = Tile(v, r)
            y = MatMul(x, u)
        }"""
    )
    result = optimize(model)
    assert ops(result)["DequantizeLinear"] == 1
    assert_same(model, result)


def test_transposed_weights_outside_the_file_are_not_read(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
    weight.tofile(tmp_path / "w.bin")
    model = parse("g (float[n,600] x) => (float[n,600] y) { t = Transpose<perm=[1,0]>(x)\n y = MatMul(x, t) }")
    tensor = ir.ExternalTensor(
        "w.bin", 0, weight.nbytes, ir.DataType.FLOAT, shape=ir.Shape([600, 600]), name="w", base_dir=tmp_path
    )
    value = ir.Value(name="w", const_value=tensor, shape=ir.Shape([600, 600]), type=ir.TensorType(ir.DataType.FLOAT))
    model.graph.register_initializer(value)
    model.graph[0].replace_input_with(0, value)
    assert FoldConstants()(model).modified
    folded = model.graph[0].inputs[1]
    assert folded is not None and isinstance(folded.const_value, ir.LazyTensor)
    assert tensor.raw is None, "the file was mapped"
    np.testing.assert_array_equal(folded.const_value.numpy(), weight.T)
