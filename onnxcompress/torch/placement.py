"""Where each value of a graph lives: shape arithmetic stays on the host, everything else is on the module's device."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxcompress.torch.standard import operator_of
from onnxcompress.torch.types import FLOATS

Use = tuple[ir.Node, int]


class Placement:
    """Which values are on the host.

    1. What gives shapes (Shape, Size) is on the host.
    2. A node that reads nothing but host values and constants is on the host; of constants alone, only where they
       are integers.
    3. Inputs that are plain numbers to their operator do not count: they are read wherever they are.
    4. A node with subgraphs is on the device.
    5. Constants are wherever they are needed, both if need be.
    """

    def __init__(self, model: ir.Model, constants: set[ir.Value]) -> None:
        self.constants = constants
        self.hosted: set[ir.Value] = set()
        for graph in model.graphs():  # outer graphs come before inner ones
            for node in graph:
                if self.is_hosted(node):
                    self.hosted.update(node.outputs)

    def is_hosted(self, node: ir.Node) -> bool:
        """Does the node run on the host?"""
        operator = operator_of(node)
        if operator is None or any(a.type in _SUBGRAPHS for a in node.attributes.values()):
            return False
        if operator.shapes:
            return True
        data = [value for value in data_inputs(node)]
        if any(value not in self.hosted and value not in self.constants for value in data):
            return False
        return any(value in self.hosted for value in data) or not any(value.dtype in FLOATS for value in data)

    def is_number(self, use: Use) -> bool:
        """Is the value read as a plain number, or in shape arithmetic?"""
        node, index = use
        operator = operator_of(node)
        return (operator is not None and index in operator.numbers) or self.is_hosted(node)


_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def data_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs that are there and are tensors to the operator."""
    operator = operator_of(node)
    for index, value in enumerate(node.inputs):
        if value is not None and (operator is None or index not in operator.numbers):
            yield value
