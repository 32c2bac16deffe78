"""Real models: cut to 70 % of their multiply-accumulates they are the masked models, and cost what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress import inspect
from onnxcompress.optimizer import optimize
from onnxcompress.passes.prune.channels import (
    DropBlocks,
    PruneChannels,
    choose_units,
    explain,
    find_blocks,
    find_groups,
    find_transformer_layers,
    unit_saliency,
)
from tests.passes.prune.channels.networks import Array, Feed, execute, masked, random_keep, relative
from tests.zoo import ZooModel

Zoo = Callable[[str], ZooModel]

TOLERANCE = 1e-5

CUT = {
    "ppocr-cls": (26, 0),
    "ppocr-rec": (23, 2),
    "ppocr-det": (36, 0),
    "ddddocr-det": (67, 0),
    "minilm": (6, 6),
}
"""Groups of channels or neurons, and of heads."""


@cache
def optimized(model: ZooModel) -> ir.Model:
    return optimize(model.path(), portable=True)


def prepared(model: ZooModel) -> tuple[ir.Model, Feed]:
    """An optimized model that may be changed, and its speed feed."""
    return optimized(model).clone(), model.speed_feed()


def raw(model: ir.Model) -> ir.Model:
    """With what goes into a last Sigmoid for an output: near 0 a Sigmoid of float32 has no digits to compare."""
    result = model.clone()
    for i, output in enumerate(result.graph.outputs):
        node = output.producer()
        if node is not None and node.op_type == "Sigmoid" and node.inputs[0] is not None:
            node.inputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            result.graph.outputs[i] = node.inputs[0]
            result.graph.remove(node, safe=True)
    return result


def floats(arrays: list[Array]) -> list[Array]:
    return [array for array in arrays if array.dtype == np.float32]


def magnitudes(model: ir.Model) -> dict[str, Array]:
    return {
        name: np.abs(value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT
    }


@pytest.mark.parametrize("name", CUT)
def test_a_model_at_70_percent_is_the_masked_one(zoo: Zoo, name: str) -> None:
    model, feed = prepared(zoo(name))
    groups, refused = find_groups(model)
    heads = [group for group in groups if group.kind == "heads"]
    assert (len(groups) - len(heads), len(heads)) == CUT[name]
    shapes = {key: list(array.shape) for key, array in feed.items()}
    saliency = magnitudes(model)
    keep = choose_units(model, groups, {g.name: unit_saliency(g, saliency) for g in groups}, 0.7, shapes=shapes)
    result = model.clone()
    PruneChannels(keep)(result)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    before, after = inspect(model, shapes=shapes).macs, inspect(result, shapes=shapes).macs
    assert before is not None and after is not None
    assert 0.62 < after / before <= 0.7
    expected = floats(execute(raw(masked(model, groups, keep)), feed))
    for actual, wanted in zip(floats(execute(raw(result), feed)), expected, strict=True):
        assert relative(actual, wanted) < TOLERANCE
    lines = explain(groups, refused, keep)
    assert len(lines) == len(groups) + len(refused)
    assert sum("[keeps " in line for line in lines) == len(keep)


@pytest.mark.parametrize("name", [*CUT, "magika", "silero-16k"])
def test_a_random_cut_is_the_masked_one(zoo: Zoo, name: str) -> None:
    model, feed = prepared(zoo(name))
    groups, _ = find_groups(model)
    keep = random_keep(groups, seed=1, least=0.5)
    result = model.clone()
    assert PruneChannels(keep)(result).modified
    expected = floats(execute(raw(masked(model, groups, keep)), feed))
    for actual, wanted in zip(floats(execute(raw(result), feed)), expected, strict=True):
        assert relative(actual, wanted) < 10 * TOLERANCE  # no trained network: its Softmax may saturate


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("ppocr-cls", "linear_1.tmp_1/Gemm", "runs over it"),
        ("ppocr-rec", "p2o.Conv.34", "(LayerNormalization) takes its statistics over it"),
        ("minilm", "node_embedding", "a width that is looked up in a table"),
        ("ddddocr-det", "Conv_261", "the model's output 'output'"),
        ("silero-16k", "/model/encoder/3/reparam_conv/Conv", "a subgraph of /model/decoder/If (If) reads it"),
    ],
)
def test_refusals_say_why(zoo: Zoo, name: str, layer: str, reason: str) -> None:
    model, _ = prepared(zoo(name))
    (refusal,) = (refusal for refusal in find_groups(model)[1] if refusal.name == layer)
    assert reason in refusal.reason


@pytest.mark.parametrize(("name", "blocks"), [("ppocr-cls", 7), ("ppocr-det", 8), ("ddddocr-det", 7), ("minilm", 12)])
def test_models_without_their_blocks_run(zoo: Zoo, name: str, blocks: int) -> None:
    model, feed = prepared(zoo(name))
    found = find_blocks(model)
    assert len(found) == blocks
    before = [array.shape for array in execute(model, feed)]
    lost = sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value)
    DropBlocks([block.name for block in found])(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [array.shape for array in execute(model, feed)] == before
    lost -= sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value)
    assert lost >= sum(block.parameters for block in found)


def test_layers_of_minilm_are_left_out(zoo: Zoo) -> None:
    model, feed = prepared(zoo("minilm"))
    layers = find_transformer_layers(model)
    assert [(layer.name, layer.parameters) for layer in layers] == [(f"layer.{i}", 1774464) for i in range(6)]
    (expected,) = execute(model, feed)
    DropBlocks(["layer.3", "layer.5"])(model)
    assert [layer.input for layer in find_transformer_layers(model)] == [layers[i].input for i in range(4)]
    (actual,) = execute(model, feed)
    # Still an embedding of the same text: a sixth of the layers is not all that it knows.
    assert 0.2 < float((actual * expected).sum(axis=-1).min()) < 0.999
