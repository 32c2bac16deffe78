"""Every zoo model as a module: forward as in ONNX Runtime, backward, and written back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxcompress.optimizer import optimize
from onnxcompress.quantizer import quantize
from onnxcompress.runtime.session import open_session, run
from onnxcompress.torch import OnnxModule
from onnxcompress.torch.calls import function_of, imports_of
from onnxcompress.torch.constants import tensor_of
from onnxcompress.torch.types import Types
from tests.torch.comparison import Array, distance
from tests.zoo import SMALL, ZooModel

BRANCH_OF_ANOTHER_RATE = "If_0_else_branch"
"""Silero's weights for the sampling rate that the feed does not have."""

CUT_IN_THE_MODEL = {"ddddocr-old"}
"""Rounds its biases to integers inside the graph: no gradient reaches them, whoever computes it."""


def backward(module: OnnxModule, feed: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    outputs: tuple[torch.Tensor, ...] = module(feed)
    sum(output.square().mean() for output in outputs if output.is_floating_point()).backward()
    return outputs


def test_forward_backward_and_write_back(zoo_model: ZooModel) -> None:
    feed = zoo_model.feeds(1)[0]
    expected = run(open_session(zoo_model.path(), threads=1), feed)
    module = OnnxModule(zoo_model.path())
    outputs = backward(module, feed)
    # One value that falls on the other side of a rounding (a Sigmoid differs in its last bit) moves the rest.
    tolerance = 0.03 if zoo_model.is_quantized else 1e-4
    assert all(distance(y, reference) < tolerance for y, reference in zip(outputs, expected, strict=True))
    reached = 0
    for name in module.weight_names:
        gradient = module.parameter_of(name).grad
        if name.startswith(BRANCH_OF_ANOTHER_RATE) or (gradient is None and zoo_model.name in CUT_IN_THE_MODEL):
            continue
        assert gradient is not None and bool(gradient.isfinite().all()), name
        reached += 1
    assert reached >= 2
    back = run(open_session(module.write_back(), threads=1), feed)
    assert all(distance(y, reference) < 1e-5 for y, reference in zip(back, expected, strict=True))


@pytest.mark.parametrize("name", ["ppocr-cls", "magika", "ddddocr-old", "ppocr-rec"])
def test_shapes_are_computed_on_the_host(name: str, zoo: Callable[[str], ZooModel]) -> None:
    """The meta device has no values: a shape that is computed there fails."""
    feed = zoo(name).feeds(1)[0]
    outputs = OnnxModule(zoo(name).path()).to("meta")(feed)
    expected = run(open_session(zoo(name).path(), threads=1), feed)
    assert [tuple(y.shape) for y in outputs] == [reference.shape for reference in expected]
    assert {y.device.type for y in outputs} == {"meta"}


@pytest.mark.parametrize("name", SMALL)
def test_optimized_models_are_the_same_modules(name: str, zoo: Callable[[str], ZooModel]) -> None:
    model = optimize(zoo(name).path())
    feed = zoo(name).feeds(1)[0]
    for y, reference in zip(OnnxModule(model)(feed), run(open_session(model, threads=1), feed), strict=True):
        assert distance(y, reference) < 1e-4


def test_changed_weights_are_the_same_in_both(zoo: Callable[[str], ZooModel]) -> None:
    feed = zoo("ppocr-cls").feeds(1)[0]
    module = OnnxModule(zoo("ppocr-cls").path())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1 + 0.02 * torch.randn(parameter.shape, generator=generator))
    names = [node.outputs[0].name for node in module.write_back().graph if node.op_type == "Conv"][-1:]
    tapped = module.write_back()
    tapped.graph.outputs.extend(node.outputs[0] for node in tapped.graph if node.outputs[0].name in names)
    reference = run(open_session(tapped, threads=1), feed)[-1]
    assert distance(module.values(feed, [str(names[0])])[str(names[0])], reference) < 1e-4


def test_each_node_of_a_quantized_model_equals_onnx_runtime(zoo: Callable[[str], ZooModel]) -> None:
    """On the inputs that ONNX Runtime has there, so that nothing adds up."""
    model = ir.load(zoo("ddddocr-old").path())
    tapped = model.clone()
    made = [value for node in tapped.graph if node.op_type != "Constant" for value in node.outputs if value.name]
    tapped.graph.outputs.extend(value for value in made if value not in list(tapped.graph.outputs))
    feed = zoo("ddddocr-old").feeds(1)[0]
    session = open_session(tapped, threads=1, optimize=False)
    values = {output.name: array for output, array in zip(session.get_outputs(), run(session, feed), strict=True)}
    values |= feed
    types, imports, checked = Types(), imports_of(model), 0
    for node in model.graph:
        if node.op_type == "Constant":
            continue
        inputs = [None if value is None else _tensor(value, values) for value in node.inputs]
        results = function_of(node, imports, types)(*inputs)
        for value, result in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=False):
            if value.name:
                assert distance(result, values[value.name]) < 1e-6, node.name
                checked += 1
    assert checked > 200


def _tensor(value: ir.Value, values: Mapping[str, Array]) -> torch.Tensor:
    constant = tensor_of(value)
    return torch.from_numpy(np.array(values[str(value.name)] if constant is None else constant.numpy()))


@pytest.mark.parametrize("name", ["ppocr-cls", "magika"])
def test_statically_quantized_models_equal_onnx_runtime(name: str, zoo: Callable[[str], ZooModel]) -> None:
    feeds = zoo(name).feeds(4)
    model = quantize(zoo(name).path(), data=feeds).model
    module = OnnxModule(model, learn_scales=True)
    outputs = backward(module, feeds[0])
    expected = run(open_session(model, threads=1, optimize=False), feeds[0])
    assert all(distance(y, reference) < 1e-4 for y, reference in zip(outputs, expected, strict=True))
    assert sum(model.graph.initializers[n].dtype != ir.DataType.FLOAT for n in module.weight_names) >= 2
    for key in (*module.weight_names, *module.scale_names):
        gradient = module.parameter_of(key).grad
        assert gradient is not None and bool(gradient.isfinite().all()), key
    back = run(open_session(module.write_back(), threads=1, optimize=False), feeds[0])
    assert all(distance(y, reference) < 1e-5 for y, reference in zip(back, expected, strict=True))
