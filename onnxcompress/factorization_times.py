"""How long a layer takes as it is, and as two of low rank: measured alone, with its real shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.calibration.taps import sized
from onnxcompress.data import Feed
from onnxcompress.passes.lowrank import FactorizeLinear, Factors
from onnxcompress.passes.prune.layers import Layer, layer_nodes
from onnxcompress.progress import Progress, silent
from onnxcompress.runtime.profile import time_of
from onnxcompress.runtime.session import open_session, run
from onnxcompress.runtime.timings import node_times

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

RUNS = 15
NODE_MS = 0.002
"""What ONNX Runtime takes for one more node, beside its kernel."""


@dataclass(frozen=True)
class Times:
    """Milliseconds of a layer.

    Attributes:
        dense: as it is.
        factored: by rank; both factors.
    """

    dense: float
    factored: Mapping[int, float]


def layer_times(
    model: ir.Model,
    layers: Sequence[Layer],
    ranks: Mapping[str, Sequence[int]],
    feed: Feed,
    *,
    threads: int = 1,
    progress: Progress = silent,
) -> dict[str, Times]:
    """Time layers alone; layers of the same kind and shapes once, and those that were timed on another day not at all.

    Args:
        model: what the layers are of.
        layers: of one group.
        ranks: those to try, by layer name.
        feed: gives the shapes.
        threads: within an operator.

    Returns:
        by layer name.
    """
    shapes = _input_shapes(model, layers, feed, threads)
    measured: dict[tuple[object, ...], Times] = {}
    found = {}
    for index, (layer, node) in enumerate(layer_nodes(model, layers)):
        progress("timing layers", index, len(layers))
        attributes = tuple(sorted((name, str(a.value)) for name, a in node.attributes.items()))
        key = (layer.op, attributes, layer.inputs, layer.outputs, shapes[layer.input], tuple(ranks[layer.name]))
        if key not in measured:
            measured[key] = _measured(node, shapes[layer.input], layer, ranks[layer.name], threads)
        found[layer.name] = measured[key]
    return found


def _input_shapes(model: ir.Model, layers: Sequence[Layer], feed: Feed, threads: int) -> dict[str, Shape]:
    names = list(dict.fromkeys(layer.input for layer in layers))
    found = run(open_session(sized(model, names), threads=threads), feed) if names else []
    return {name: tuple(int(size) for size in shape) for name, shape in zip(names, found, strict=True)}


def _measured(node: ir.Node, shape: Shape, layer: Layer, ranks: Sequence[int], threads: int) -> Times:
    """One model holds the layer once for each rank and once as it is, all side by side."""
    model = _side_by_side(node, shape, ["dense", *(f"rank{rank}" for rank in ranks)])
    rng = np.random.default_rng(0)
    FactorizeLinear({
        f"rank{rank}": Factors(
            rng.normal(size=(rank, layer.inputs)).astype(np.float32),
            rng.normal(size=(layer.outputs, rank)).astype(np.float32),
        )
        for rank in ranks
    })(model)  # fmt: skip
    feed = {"x": rng.normal(size=shape).astype(np.float32)}
    times = node_times(model, [feed], threads=threads, runs=RUNS)
    by_name = {n.name: time_of(n, times) or 0.0 for n in model.graph}
    factored = {rank: by_name[f"rank{rank}"] + by_name[f"rank{rank}/first"] + NODE_MS for rank in ranks}
    return Times(by_name["dense"], factored)


def _side_by_side(node: ir.Node, shape: Shape, names: Sequence[str]) -> ir.Model:
    """A model that reads `x` and runs copies of a layer on it, each with a weight of its own and without a bias."""
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None and node.graph is not None
    tensor = weight.const_value.numpy()
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    initializers, nodes = [], []
    for name in names:
        copied = ir.Value(
            name=f"{name}/weight", shape=ir.Shape(tensor.shape), type=ir.TensorType(ir.DataType.FLOAT),
            const_value=ir.Tensor(tensor),
        )  # fmt: skip
        initializers.append(copied)
        made = ir.Node(node.domain, node.op_type, [x, copied], list(node.attributes.values()), name=name)
        made.outputs[0].name = f"{name}/output"
        made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        nodes.append(made)
    graph = ir.Graph(
        [x], [made.outputs[0] for made in nodes], nodes=nodes, initializers=initializers, name="layers",
        opset_imports={"": node.graph.opset_imports.get("", 21)},
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)
