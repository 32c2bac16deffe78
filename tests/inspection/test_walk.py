"""Shapes, dtypes and folded values against ONNX Runtime's; control flow and functions."""

from __future__ import annotations

import math
import re

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.errors import ModelError
from onnxcompress.inspection.walk import Walk, walk_model

HEADER = '<ir_version: 10, opset_import: ["": 21]>'


def parse(text: str) -> ir.Model:
    """A model from its text, where `float[3,5] w = {0}` is a whole tensor of zeros."""

    def fill(match: re.Match[str]) -> str:
        size = math.prod(int(dim) for dim in match[2].split(","))
        return f"{match[1]}{{{', '.join(['0'] * size)}}}"

    text = re.sub(r"(\w+\[([\d,]+)\] \w+ = )\{0\}", fill, text)
    return ir.from_proto(onnx.parser.parse_model(text))


def assert_like_onnxruntime(model: ir.Model, feeds: dict[str, np.ndarray]) -> Walk:
    """Every value of the main graph: shape, type, and value where one was folded."""
    walk = walk_model(model, {name: array.shape for name, array in feeds.items()})
    proto = ir.to_proto(model)
    present = {output.name for output in proto.graph.output}
    for node in proto.graph.node:
        for name in node.output:
            if name not in present:
                dtype = walk.values[name].dtype
                assert dtype is not None
                proto.graph.output.add(name=name).type.tensor_type.elem_type = int(dtype)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for output, array in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        facts = walk.values[output.name]
        assert facts.shape == array.shape, output.name
        assert facts.dtype is not None
        assert facts.dtype.numpy() == array.dtype
        if facts.data is not None:
            np.testing.assert_array_equal(facts.data, array)
    return walk


def test_arithmetic_on_shapes_is_followed() -> None:
    # As exporters write it: height * width / 4 through Shape, Gather, Mul, Div, Concat into Reshape and Slice.
    model = parse(
        f"""{HEADER} g (float[N,C,H,W] x) => (float[N,P,Q] y)
        <int64 one = {{1}}, int64 two = {{2}}, int64 three = {{3}}, int64 four = {{4}}, int64[1] zero = {{0}},
         int64[1] front = {{0}}, int64[1] minus = {{-1}}, int64[1] axis = {{2}}> {{
            s = Shape(x)
            h = Gather(s, two)
            w = Gather(s, three)
            area = Mul(h, w)
            quarter = Div(area, four)
            quarter1 = Unsqueeze(quarter, zero)
            n = Gather(s, zero)
            to = Concat<axis=0>(n, minus, quarter1)
            r = Reshape(x, to)
            half = Div(quarter1, one)
            y = Slice(r, front, half, axis)
        }}"""
    )
    walk = assert_like_onnxruntime(model, {"x": np.zeros((2, 3, 8, 6), np.float32)})
    assert walk.values["r"].shape == (2, 12, 12)


def test_old_operator_versions_are_evaluated_as_they_were() -> None:
    # Unsqueeze took its axes as an attribute before opset 13.
    model = parse(
        """<ir_version: 6, opset_import: ["": 12]> g (float[N,4] x) => (float[A,B] y) <int64[1] four = {4}> {
            s = Shape(x)
            i = Constant<value = int64 {0}>()
            n = Gather(s, i)
            n1 = Unsqueeze<axes=[0]>(n)
            to = Concat<axis=0>(four, n1)
            y = Reshape(x, to)
        }"""
    )
    walk = assert_like_onnxruntime(model, {"x": np.zeros((3, 4), np.float32)})
    assert walk.values["y"].shape == (4, 3)


def test_dimensions_stay_symbols_without_shapes() -> None:
    walk = walk_model(parse(f"{HEADER} g (float[batch,4] x) => (float[batch,4] y) {{ y = Relu(x) }}"))
    assert walk.values["y"].shape == ("batch", 4)
    assert walk.values["y"].size is None


def branch(value: str) -> str:
    return f"""{HEADER} g (float[2,3] x, bool c) => (float[2,M] y) <float[3,5] a = {{0}}, float[3,50] b = {{0}}> {{
        {value}
        y = If(k) <
            then_branch = small () => (float[2,5] t) {{ t = MatMul(x, a) }},
            else_branch = large () => (float[2,50] e) {{ e = MatMul(x, b) }}
        >
    }}"""


def test_branch_with_unknown_condition_counts_the_costlier() -> None:
    found = onnxcompress.inspect(parse(branch("k = Identity(c)")))
    assert found.macs == 2 * 3 * 50
    assert [node.counted for node in found.nodes if node.op == "MatMul"] == [False, True]
    assert any("costlier" in note for note in found.notes)
    assert found.outputs[0].shape == (2, "M")


def test_branch_with_known_condition_counts_what_is_taken() -> None:
    found = onnxcompress.inspect(parse(branch("k = Constant<value = bool {1}>()")))
    assert found.macs == 2 * 3 * 5
    assert found.outputs[0].shape == (2, 5)
    assert [node.scope for node in found.nodes if node.op == "MatMul"] == [("If_1.then",), ("If_1.else",)]


def test_loop_counts_every_iteration() -> None:
    model = parse(
        f"""{HEADER} g (float[2,3] x) => (float[2,3] y, float[7,2,3] all)
        <int64 trips = {{7}}, bool go = {{1}}, float[3,3] w = {{0}}> {{
            y, all = Loop(trips, go, x) <body = b (int64 i, bool c, float[2,3] h)
                => (bool d, float[2,3] z, float[2,3] o) {{ d = Identity(c) z = MatMul(h, w) o = Relu(z) }}>
        }}"""
    )
    found = onnxcompress.inspect(model)
    assert found.macs == 7 * 2 * 3 * 3
    assert [v.shape for v in found.outputs] == [(2, 3), (7, 2, 3)]
    inner = next(node for node in found.nodes if node.op == "MatMul")
    assert (inner.executions, inner.activation_bytes) == (7, 7 * 24)


def test_loop_state_that_grows_has_an_open_dimension() -> None:
    model = parse(
        f"""{HEADER} g (float[1,3] x) => (float[K,3] y) <int64 trips = {{4}}, bool go = {{1}}> {{
            y = Loop(trips, go, x) <body = b (int64 i, bool c, float[J,3] h) => (bool d, float[L,3] z)
                {{ d = Identity(c) z = Concat<axis=0>(h, h) }}>
        }}"""
    )
    assert not isinstance(walk_model(model).outputs["y"].shape[0], int)  # type: ignore[index]


def test_scan_runs_once_for_every_step() -> None:
    model = parse(
        f"""{HEADER} g (float[2,3] x, float[5,2,3] steps) => (float[2,3] y, float[5,2,3] all)
        <float[3,3] w = {{0}}> {{
            y, all = Scan<num_scan_inputs=1, body = b (float[2,3] h, float[2,3] s) => (float[2,3] z, float[2,3] o)
                {{ t = MatMul(h, w) z = Add(t, s) o = Relu(z) }}>(x, steps)
        }}"""
    )
    found = onnxcompress.inspect(model)
    assert found.macs == 5 * 2 * 3 * 3
    assert found.outputs[1].shape == (5, 2, 3)


FUNCTIONS = """<ir_version: 10, opset_import: ["": 21, "mine": 1]>
g (float[2,3] x) => (float[2,4] y) <float[3,4] a = {0}, float[4,4] b = {0}> {
    h = mine.Linear<alpha=2.0>(x, a)
    y = mine.Linear<alpha=3.0>(h, b)
}
<domain: "mine", opset_import: ["": 21]> Linear<alpha>(x, w) => (y) { y = Gemm<alpha: float = @alpha>(x, w) }
"""


def test_functions_are_walked_at_every_call() -> None:
    found = onnxcompress.inspect(parse(FUNCTIONS))
    gemms = [node for node in found.nodes if node.op == "Gemm"]
    assert [(node.scope, node.macs, node.parameters) for node in gemms] == [
        (("Linear_0",), 2 * 3 * 4, 12),
        (("Linear_1",), 2 * 4 * 4, 16),
    ]
    assert [node.attributes["alpha"] for node in gemms] == ["2.0", "3.0"]
    assert found.macs == 2 * 3 * 4 + 2 * 4 * 4
    assert found.functions == {"mine::Linear": 1}


def test_function_that_calls_itself_is_refused() -> None:
    text = FUNCTIONS.replace("y = Gemm<alpha: float = @alpha>(x, w)", "y = mine.Linear(x, w)")
    model = parse(
        text.replace('<domain: "mine", opset_import: ["": 21]>', '<domain: "mine", opset_import: ["": 21, "mine": 1]>')
    )
    with pytest.raises(ModelError, match="calls itself"):
        walk_model(model)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 3)}, "no input is named 'z'"),
        ({"x": (1, 4)}, "does not fit"),
        ({"x": (1, 3, 1)}, "does not fit"),
        ({"x": (1, 3), "z2": (2, 5)}, "dimension 'N'"),
    ],
)
def test_shapes_that_contradict_the_model(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    model = parse(f"{HEADER} g (float[N,3] x, float[N,5] z2) => (float[N,8] y) {{ y = Concat<axis=1>(x, z2) }}")
    with pytest.raises(ModelError, match=message):
        walk_model(model, shapes)


def test_wrong_node_is_noted_not_fatal() -> None:
    walk = walk_model(parse(f"{HEADER} g (float[2,3] x) => (float[4,5] y) {{ y = MatMul(x, x) }}"))
    assert "cannot be inferred" in walk.notes[0]
    assert walk.values["y"].shape == (4, 5)


def test_onnxruntime_operators_have_shapes() -> None:
    model = parse(
        """<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        g (float[2,8] x) => (float[2,8] y) <float[8,6] w = {0}, float[6,8] v = {0}> {
            a = com.microsoft.FusedMatMul<alpha=0.5>(x, w)
            b = com.microsoft.Gelu(a)
            c = com.microsoft.FusedMatMul<transA=0, transB=1>(b, w)
            y = com.microsoft.QuickGelu(c)
        }"""
    )
    assert_like_onnxruntime(model, {"x": np.zeros((2, 8), np.float32)})
