"""One linear layer becomes two thin ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from onnxcompress.passes.lowrank.decomposition import Factors
from onnxcompress.passes.prune.layers import find_layers, from_matrix, layer_nodes
from onnxcompress.passes.simplify.editor import Editor

GEOMETRY = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
"""Of a Conv: what its first factor takes over; the second one is 1x1."""


class FactorizeLinear(ir.passes.InPlacePass):
    """Replace weights W [N, K] by `second @ first`, [N, r] and [r, K].

    The node keeps its name, its output and its bias, and takes `second`; a new node `NAME/first` before it takes
    `first` (K of a Conv runs over (ky, kx, channel), as in `passes.prune.to_matrix`).

    1. MatMul: two of them.
    2. Gemm: the new one has no bias, and both keep transB; alpha and beta stay on the second.
    3. Conv of one group: the new one takes over kernel, strides, pads and dilations, the second is 1x1. Border
       and bias come out the same: what the first gives for zeros is zero.

    Layers are those of `find_layers` (main graph, constant float32 weight of its own).

    Args:
        factors: by layer name.

    Raises:
        ValueError: a name that is no such layer, factors of other shapes, or a convolution of several groups.
    """

    def __init__(self, factors: Mapping[str, Factors]) -> None:
        super().__init__()
        self.factors = dict(factors)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        layers = {layer.name: layer for layer in find_layers(model)[0]}
        for name, (first, second) in self.factors.items():
            layer = layers.get(name)
            if layer is None:
                raise ValueError(f"{name!r} is not a layer that can be factorized")
            if layer.groups != 1:
                raise ValueError(f"{name!r} is a convolution of {layer.groups} groups")
            if first.shape[1] != layer.inputs or second.shape != (layer.outputs, first.shape[0]):
                raise ValueError(f"factors {first.shape} and {second.shape} do not fit the weight of {name!r}")
        editor = Editor(model)
        chosen = [layers[name] for name in self.factors]
        for layer, node in list(layer_nodes(model, chosen)):
            _split(node, self.factors[layer.name], editor)
        return ir.passes.PassResult(model, modified=editor.changes > 0)


def _split(node: ir.Node, factors: Factors, editor: Editor) -> None:
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None and weight.name is not None
    shape = tuple(int(size) for size in weight.const_value.shape)  # type: ignore[arg-type]
    rank = len(factors.first)
    attributes: dict[str, Any] = {}
    if node.op_type == "Conv":
        first_shape, second_shape = (rank, *shape[1:]), (shape[0], rank, *[1] * len(shape[2:]))
        attributes = {name: node.attributes.pop(name).value for name in GEOMETRY if name in node.attributes}
    elif node.attributes.get_int("transB", 0) and node.op_type == "Gemm":
        first_shape, second_shape = (rank, shape[1]), (shape[0], rank)
        attributes = {"transB": 1}
    else:
        first_shape, second_shape = (shape[0], rank), (rank, shape[1])
    first = editor.constant(from_matrix(factors.first, node, first_shape), f"{weight.name}/first")
    second = editor.constant(from_matrix(factors.second, node, second_shape), f"{weight.name}/second")
    stem = node.name or node.outputs[0].name or node.op_type
    between = editor.insert(node.op_type, [node.inputs[0], first], attributes, before=node, stem=stem)
    between.name = editor.fresh(f"{stem}/first")
    between.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    between.outputs[0].shape = _shape_between(node, rank)
    editor.set_input(node, 0, between.outputs[0])
    editor.set_input(node, 1, second)


def _shape_between(node: ir.Node, rank: int) -> ir.Shape | None:
    """That of the node's own output, with `rank` channels."""
    shape = node.outputs[0].shape
    if shape is None:
        return None
    dims = list(shape)
    dims[1 if node.op_type == "Conv" else -1] = rank
    return ir.Shape(dims)
