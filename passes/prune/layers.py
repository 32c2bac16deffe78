"""The layers that masks and solvers work on, and the one view that all of them share: a weight as [N, K]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize.roles import STANDARD
from onnxcompress.passes.simplify.editor import all_nodes

Array = np.ndarray[Any, Any]

OPERATORS = ("Conv", "Gemm", "MatMul")

NO_VIEW = {"ConvTranspose", "LSTM", "GRU", "RNN", "Einsum"}
"""Operators with weights that no mask is made for; they are reported."""


@dataclass(frozen=True)
class Layer:
    """A node with a constant float weight that masks and solvers work on.

    Attributes:
        name: the node's, or of its first output where it has none.
        op: Conv, MatMul or Gemm.
        weight: the initializer; no other node reads it.
        input: the activation that the node reads.
        inputs: K, columns of the weight's [N, K] view; of a Conv those of one group.
        outputs: N, rows of the view, over all groups.
        groups: of a Conv; 1 for the others.
    """

    name: str
    op: str
    weight: str
    input: str
    inputs: int
    outputs: int
    groups: int = 1


@dataclass(frozen=True)
class Refusal:
    """A node with weights that is left as it is, and why."""

    name: str
    op: str
    reason: str


def find_layers(model: ir.Model) -> tuple[list[Layer], list[Refusal]]:
    """The layers of a model in graph order, and the nodes with weights that are none.

    1. Conv, Gemm or MatMul of the main graph whose second input is a float32 initializer; the activation is
       another value. MatMul's is a matrix. Gemm has no transA.
    2. Only this node reads the initializer, and it is neither an input nor an output of the model: changing it
       changes nothing else.
    3. A Conv has more than one input channel a group: depthwise weights are few, and no kernel skips their zeros.

    Nodes in subgraphs (`If`, `Loop`) are refused.
    """
    layers: list[Layer] = []
    refusals: list[Refusal] = []
    for node in all_nodes(model):
        outcome = _examine(node, model.graph)
        if isinstance(outcome, Layer):
            layers.append(outcome)
        elif outcome is not None:
            refusals.append(Refusal(name_of(node), node.op_type, outcome))
    return layers, refusals


def name_of(node: ir.Node) -> str:
    """The node's name; of its first output where it has none."""
    return node.name or node.outputs[0].name or ""


def layer_nodes(model: ir.Model, layers: Sequence[Layer]) -> Iterator[tuple[Layer, ir.Node]]:
    """Each layer with its node, in the order of the layers.

    Raises:
        ValueError: a layer of another model.
    """
    for layer in layers:
        value = model.graph.initializers.get(layer.weight)
        uses = [] if value is None else [use.node for use in value.uses()]
        if len(uses) != 1 or name_of(uses[0]) != layer.name:
            raise ValueError(f"the model has no layer {layer.name!r} with the weight {layer.weight!r}")
        yield layer, uses[0]


def weight_of(model: ir.Model, layer: Layer) -> Array:
    """The weight of a layer as it is stored, float32.

    Raises:
        KeyError: no such initializer.
    """
    tensor = model.graph.initializers[layer.weight].const_value
    assert tensor is not None
    array: Array = tensor.numpy()
    return array


def to_matrix(weight: Array, node: ir.Node) -> Array:
    """The [N, K] view of an array of a weight's shape (a copy only where the memory's order asks for one).

    Conv [N, C / groups, ky, kx]: K runs over (ky, kx, channel), channel innermost. MatMul [K, N] and Gemm without
    transB: transposed. Gemm with transB: as it is.
    """
    if node.op_type == "Conv":
        return np.moveaxis(weight, 1, -1).reshape(weight.shape[0], -1)
    return weight if _rows_first(node) else weight.T


def from_matrix(matrix: Array, node: ir.Node, shape: Sequence[int]) -> Array:
    """The array of the weight's `shape` of which `matrix` [N, K] is the view; contiguous."""
    if node.op_type == "Conv":
        outputs, channels, *kernel = shape
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(outputs, *kernel, channels), -1, 1))
    return np.ascontiguousarray(matrix if _rows_first(node) else matrix.T).reshape(tuple(shape))


def _rows_first(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0


def _examine(node: ir.Node, graph: ir.Graph) -> Layer | str | None:
    """The layer that a node is, why it is none, or None where nobody would ask."""
    if node.domain not in STANDARD:
        return None
    if node.op_type in NO_VIEW:
        return f"{node.op_type} has no masks"
    if node.op_type not in OPERATORS:
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.const_value is None or activation is None:
        return _inconstancy(node)
    reason = _weight_refusal(node, weight, graph)
    if reason is not None:
        return reason
    shape = tuple(int(size) for size in weight.const_value.shape)  # type: ignore[arg-type]
    return _shaped(node, activation, weight, shape)


def _weight_refusal(node: ir.Node, weight: ir.Value, graph: ir.Graph) -> str | None:
    assert weight.const_value is not None
    if weight.is_graph_input() or weight.is_graph_output():
        return "its weight is an input or output of the model"
    if weight.const_value.dtype != ir.DataType.FLOAT:
        return "its weight is not float32"
    if node.graph is not graph:
        return "it lies in a subgraph"
    if len(weight.uses()) > 1:
        others = sorted({name_of(use.node) for use in weight.uses() if use.node is not node})
        return f"its weight is shared with {others[0]}" if others else "its weight is also another of its inputs"
    return None


def _shaped(node: ir.Node, activation: ir.Value, weight: ir.Value, shape: tuple[int, ...]) -> Layer | str:
    if 0 in shape:
        return "its weight is empty"
    groups = 1
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        if shape[1] == 1 and groups > 1:
            return "it is depthwise: its weights are few, and no kernel skips their zeros"
        outputs, inputs = shape[0], int(np.prod(shape[1:]))
    else:
        if len(shape) != 2:
            return "its weight is not a matrix"
        if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0:
            return "Gemm with transA"
        outputs, inputs = shape if _rows_first(node) else shape[::-1]
    return Layer(name_of(node), node.op_type, weight.name or "", activation.name or "", inputs, outputs, groups)


def _inconstancy(node: ir.Node) -> str:
    constant = any(value is not None and value.const_value is not None for value in node.inputs[:2])
    return "its weight is not a constant second input" if constant else "both its factors are activations"
