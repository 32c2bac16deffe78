"""`extract`: the part computes what the whole does there; every refusal names what is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.errors import ModelError
from onnxcompress.extractor import split_names
from onnxcompress.ops import DOMAIN
from onnxcompress.runtime import open_session
from tests.lowered import lowered_cnn

MODEL = """<ir_version: 10, opset_import: ["": 21, "mine": 1], metadata_props: ["author": "someone"]>
g (float[N,2] x, float[N,2] z) => (float[N,2] y, float[N,2] other) <float[2,2] w = {1,2,3,4}, float[2] unused = {1,2}> {
    a = MatMul(x, w)
    s, t = Split<axis=0, num_outputs=2>(a)
    b = mine.Double(s)
    c = Add(b, z)
    y = MatMul(c, w)
    other = mine.Other(z)
}
<domain: "mine", opset_import: ["": 21, "mine": 1]> Double(p) => (q) { q = mine.Twice(p) }
<domain: "mine", opset_import: ["": 21]> Twice(p) => (q) { q = Add(p, p) }
<domain: "mine", opset_import: ["": 21]> Other(p) => (q) { q = Relu(p) }
"""


def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(MODEL))


def run(part: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    proto = ir.to_proto(part)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def test_part_computes_what_the_whole_does() -> None:
    part = onnxcompress.extract(model(), inputs=["s", "z"], outputs=["c", "y"])
    s, z = np.array([[1, 2]], np.float32), np.array([[3, 5]], np.float32)
    c, y = run(part, s=s, z=z)
    np.testing.assert_allclose(c, 2 * s + z)
    np.testing.assert_allclose(y, (2 * s + z) @ [[1, 2], [3, 4]])
    assert [v.name for v in part.graph.inputs] == ["s", "z"]
    assert list(part.graph.initializers) == ["w"]
    assert part.metadata_props == {"author": "someone"}
    assert part.opset_imports == {"": 21, "mine": 1}


def test_only_used_functions_come_along() -> None:
    part = onnxcompress.extract(model(), inputs=["s", "z"], outputs=["c"])
    assert sorted(name for _, name, _ in part.functions) == ["Double", "Twice"]


def test_types_and_shapes_of_new_inputs_are_inferred() -> None:
    part = onnxcompress.extract(model(), inputs=["a"], outputs=["t"], shapes={"x": (6, 2)})
    (value,) = part.graph.inputs
    assert (value.dtype, value.shape) == (ir.DataType.FLOAT, ir.Shape((6, 2)))
    assert part.graph.outputs[0].shape == ir.Shape((3, 2))
    assert onnxcompress.extract(model(), inputs=["a"], outputs=["t"]).graph.inputs[0].shape == ir.Shape(("N", 2))


def test_input_whose_node_stays_for_its_other_output() -> None:
    part = onnxcompress.extract(model(), inputs=["s", "x"], outputs=["b", "t"])
    s, x = np.array([[7, 8]], np.float32), np.arange(8, dtype=np.float32).reshape(4, 2)
    b, t = run(part, s=s, x=x)
    np.testing.assert_allclose(b, 2 * s)
    np.testing.assert_allclose(t, (x @ [[1, 2], [3, 4]])[2:])


def test_weight_as_an_input() -> None:
    part = onnxcompress.extract(model(), inputs=["x", "w"], outputs=["a"])
    assert not part.graph.initializers
    (a,) = run(part, x=np.ones((1, 2), np.float32), w=np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(a, [[1, 1]])


def test_value_used_inside_a_subgraph() -> None:
    source = """<ir_version: 10, opset_import: ["": 21]> g (float[2] x, bool c) => (float[2] y) <float[2] w = {1,2}> {
        h = Relu(x)
        y = If(c) <then_branch = t () => (float[2] a) { a = Add(h, w) },
                   else_branch = e () => (float[2] b) { b = Neg(h) }>
    }"""
    whole = ir.from_proto(onnx.parser.parse_model(source))
    part = onnxcompress.extract(whole, inputs=["h", "c"], outputs=["y"])
    assert [node.op_type for node in part.graph] == ["If"]
    (y,) = run(part, h=np.array([5, 6], np.float32), c=np.array(True))
    np.testing.assert_allclose(y, [6, 8])
    with pytest.raises(ModelError, match="also needs 'x'"):
        onnxcompress.extract(whole, inputs=["c"], outputs=["y"])


def test_source_is_not_changed_and_part_has_no_ties_to_it() -> None:
    source = model()
    before = ir.to_proto(source).SerializeToString()
    part = onnxcompress.extract(source, inputs=["a"], outputs=["s"])
    assert ir.to_proto(source).SerializeToString() == before
    assert [node.op_type for node in part.graph.inputs[0].consumers()] == ["Split"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["nothing"], ["y"], "no value of the main graph is named 'nothing'"),
        (["x", "z"], ["othe"], "did you mean other"),
        (["b"], ["c"], "'c' also needs 'z'"),
        (["s"], ["y"], "'y' also needs 'z'"),
        (["x", "z"], ["a"], "no output depends on input 'z'"),
        (["c"], ["a"], "'a' also needs 'x'"),
        (["x", "x"], ["a"], "given twice"),
        (["x"], ["a", "a"], "given twice"),
        (["x"], ["x"], "both an input and an output"),
        ([], ["a"], "at least one"),
        (["x"], [], "at least one"),
    ],
)
def test_refusals(inputs: list[str], outputs: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        onnxcompress.extract(model(), inputs=inputs, outputs=outputs)


def test_value_of_unknown_type_is_refused() -> None:
    source = """<ir_version: 10, opset_import: ["": 21, "mine": 1]> g (float[2] x) => (float[2] y)
    { h = mine.Unknown(x) y = Relu(h) }"""
    with pytest.raises(ModelError, match="type of 'h'"):
        onnxcompress.extract(ir.from_proto(onnx.parser.parse_model(source)), inputs=["h"], outputs=["y"])


def test_a_part_of_a_lowered_model_keeps_the_functions_it_uses() -> None:
    made = lowered_cnn()
    first = next(node for node in made.model.graph if node.domain == DOMAIN)
    middle, end = first.outputs[0].name or "", made.model.graph.outputs[0].name or ""
    front = onnxcompress.extract(made.model, inputs=["x"], outputs=[middle])
    back = onnxcompress.extract(made.model, inputs=[middle], outputs=[end], shapes={"x": (1, 3, 16, 16)})
    assert len(front.functions) == 1
    assert 1 < len(back.functions) <= len(made.model.functions)
    assert (back.graph.inputs[0].dtype, back.graph.inputs[0].shape) == (ir.DataType.UINT8, ir.Shape((1, 8, 8, 32)))
    for native in (False, True):
        (between,) = open_session(front, native=native).run(None, dict(made.feeds[0]))
        (y,) = open_session(back, native=native).run(None, {middle: between})
        (whole,) = open_session(made.model, native=native).run(None, dict(made.feeds[0]))
        np.testing.assert_allclose(y, whole, rtol=1e-5, atol=1e-6)


def test_names_with_commas() -> None:
    source = model()
    next(v for v in source.graph.inputs if v.name == "z").name = "z,1"
    assert split_names(source, ["a, b", "z,1", "c"]) == ["a", "b", "z,1", "c"]
