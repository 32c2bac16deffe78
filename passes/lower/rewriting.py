"""Operators of ours that become other ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.ops import DOMAIN, OPS


def constant(graph: ir.Graph, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    """A new initializer."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def given_inputs(node: ir.Node) -> dict[str, ir.Value]:
    """The inputs that are given, by the name of their port."""
    names = OPS[node.op_type].names(len(node.inputs))
    return {name: value for name, value in zip(names, node.inputs, strict=True) if value is not None}


def written(op_type: str, given: dict[str, ir.Value], attributes: dict[str, Any], outputs: list[ir.Value]) -> ir.Node:
    """A node of ours, its inputs in the order of its ports, the last absent ones left out."""
    op = OPS[op_type]
    inputs = [given.get(port.name) for port in op.inputs]
    while inputs[-1] is None:
        inputs.pop()
    known = {name: value for name, value in attributes.items() if name in op.attributes}
    return ir.node(op_type, inputs, known, domain=DOMAIN, outputs=outputs)


def replace(graph: ir.Graph, node: ir.Node, *new: ir.Node) -> None:
    """Put nodes in the place of one whose outputs they have taken over; the first one gets its name."""
    for i, each in enumerate(new):
        each.name = f"{node.name}/{each.op_type}" if i else node.name
        each.metadata_props.update(node.metadata_props)
    graph.insert_before(node, list(new))
    given = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for value in given:  # the old weight, and zero points that the new operator does without
        if value.is_initializer() and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            graph.initializers.pop(value.name or "", None)


def taken_outputs(node: ir.Node) -> list[ir.Value]:
    """Values that take the names, types and readers of the node's outputs."""
    taken = []
    for old in list(node.outputs):
        value = ir.Value(name=old.name, type=old.type, shape=old.shape)
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        old.name = None
        taken.append(value)
    return taken


def given_attributes(node: ir.Node) -> dict[str, Any]:
    """The attributes that are written down."""
    return {name: attribute.value for name, attribute in node.attributes.items()}
