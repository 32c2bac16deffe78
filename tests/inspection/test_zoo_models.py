"""`inspect`, `diff` and `extract` on real models, against ONNX Runtime running them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.inspection.walk import Walk, walk_model
from onnxcompress.runtime import open_session
from tests.zoo import SMALL, ZooModel

Values = dict[str, np.ndarray]
SHAPES_STAY_OPEN = {"silero"}
"""Its `If` on the sampling rate gives what one branch or the other gives."""


def run_whole(model: ir.Model, walk: Walk, feed: Values) -> Values:
    """Every value of the main graph, with no graph optimization."""
    proto = ir.to_proto(model)
    present = {output.name for output in proto.graph.output}
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")  # some declare a shape that is not theirs
    for node in proto.graph.node:
        for name in node.output:
            dtype = walk.values[name].dtype if name in walk.values else None
            if node.op_type != "Constant" and name not in present and dtype is not None:
                proto.graph.output.add(name=name).type.tensor_type.elem_type = int(dtype)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})
    return {output.name: array for output, array in zip(session.get_outputs(), outputs, strict=True)}


def macs_by_hand(model: ir.Model, values: Values) -> int:
    """Of the main graph's Conv, ConvTranspose, MatMul and Gemm, and their integer forms, from arrays that were run."""
    proto = ir.to_proto(model)
    arrays = dict(values)
    arrays.update({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer})
    total = 0
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            arrays[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type in ("Conv", "ConvInteger"):
            total += arrays[node.output[0]].size * math.prod(arrays[node.input[1]].shape[1:])
        elif node.op_type == "ConvTranspose":
            total += arrays[node.input[0]].size * math.prod(arrays[node.input[1]].shape[1:])
        elif node.op_type in ("MatMul", "MatMulInteger", "Gemm"):
            flipped = any(a.name == "transA" and a.i for a in node.attribute)
            total += arrays[node.output[0]].size * arrays[node.input[0]].shape[-2 if flipped else -1]
    return total


def test_shapes_and_macs(zoo_model: ZooModel) -> None:
    model = ir.load(zoo_model.path())
    feed = zoo_model.speed_feed()
    shapes = {name: array.shape for name, array in feed.items()}
    walk = walk_model(model, shapes)
    values = run_whole(model, walk, feed)
    for name, array in values.items():
        facts = walk.values[name]
        if zoo_model.name in SHAPES_STAY_OPEN and facts.size is None:
            continue
        assert facts.shape == array.shape, name
        if facts.data is not None:
            np.testing.assert_array_equal(facts.data, array, err_msg=name)
    found = onnxcompress.inspect(model, shapes=shapes)
    assert found.unknown_macs == 0
    main = sum(node.macs or 0 for node in found.nodes if not node.scope and "LSTM" not in node.op)
    assert main == macs_by_hand(model, values)
    assert found.macs > 0


@pytest.mark.parametrize(
    ("name", "parameters", "quantized"),
    [("minilm", 22_713_216 - 147_840, 0.0), ("ppocr-rec", 2_690_367, 0.0), ("ddddocr-old", 13_520_280, 1.0)],
)
def test_known_totals(zoo: Callable[[str], ZooModel], name: str, parameters: int, quantized: float) -> None:
    model = zoo(name)
    shapes = {key: array.shape for key, array in model.speed_feed().items()}
    found = onnxcompress.inspect(model.path(), shapes=shapes)
    # MiniLM's pooler (384 x 384 + 384) is not exported: sentence embeddings are means.
    assert found.parameters == pytest.approx(parameters, rel=1e-3)
    assert found.coverage.macs_share == quantized


def test_front_part_computes_what_the_whole_does_there(zoo_model: ZooModel) -> None:
    model = ir.load(zoo_model.path())
    feed = zoo_model.speed_feed()
    walk = walk_model(model, {name: array.shape for name, array in feed.items()})
    values = run_whole(model, walk, feed)
    names = [v.name or "" for node in model.graph for v in node.outputs if v.name in values]
    middle = next(n for n in names[len(names) // 2 :] if values[n].dtype == np.float32 and not walk.values[n].constant)
    part = onnxcompress.extract(model, inputs=needed_inputs(model, middle), outputs=[middle])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(part).SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})
    np.testing.assert_allclose(found, values[middle], rtol=1e-5, atol=1e-6)


def test_back_part_continues_where_the_front_ends(zoo: Callable[[str], ZooModel]) -> None:
    model = ir.load(zoo("ppocr-cls").path())
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 48, 192)).astype(np.float32)}
    middle, output = "relu_11.tmp_0", model.graph.outputs[0].name or ""
    front = onnxcompress.extract(model, inputs=["x"], outputs=[middle])
    # The model asks for the batch size of x again at its end.
    back = onnxcompress.extract(model, inputs=[middle, "x"], outputs=[output])
    between = open_session(front).run(None, feed)[0]
    np.testing.assert_allclose(
        open_session(back).run(None, {middle: between, **feed})[0],
        open_session(model).run(None, feed)[0],
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", SMALL)
def test_model_does_not_differ_from_itself(zoo: Callable[[str], ZooModel], name: str) -> None:
    path = zoo(name).path()
    found = onnxcompress.diff(path, path, data=[zoo(name).speed_feed()])
    assert found.same
    assert found.layers
    assert all(layer.snr_db is None for layer in found.layers)


def needed_inputs(model: ir.Model, end: str) -> list[str]:
    """Inputs of the model that a value of its main graph depends on."""
    reached = {end}
    for node in reversed(model.graph):
        if reached.intersection(v.name or "" for v in node.outputs):
            reached |= {v.name or "" for v in node.inputs if v is not None}
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    inner = attribute.as_graph().all_nodes()
                    reached |= {v.name or "" for n in inner for v in n.inputs if v is not None}
    return [v.name or "" for v in model.graph.inputs if v.name in reached]
