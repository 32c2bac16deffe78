"""Who writes and who reads each uint8 tensor of a set of steps, and what the nodes that stay read of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxcompress.passes.lower.convolution.reading import Functions
from onnxcompress.passes.lower.convolution.steps import Operand, Step, Table, composed

CONVOLUTIONS = ("QConv", "QConvTranspose")


@dataclass
class Flow:
    """The steps of a graph in the order of their cores, and the tensors between them.

    Attributes:
        steps: in graph order.
        functions: the graph's values that are functions of one uint8 tensor.
        writers: uint8 tensor -> the step that writes it.
        readers: uint8 tensor -> the steps that read it, and the port.
        outside: uint8 tensor -> the values, functions of it, that nodes which stay (or the graph's outputs) read.
    """

    steps: list[Step]
    functions: Functions
    writers: dict[ir.Value, Step] = field(default_factory=dict)
    readers: dict[ir.Value, list[tuple[Step, str]]] = field(default_factory=dict)
    outside: dict[ir.Value, list[ir.Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Find everything anew, after the steps changed."""
        self.writers = {step.result.value: step for step in self.steps}
        self.readers = {}
        for step in self.steps:
            for port, operand in step.operands.items():
                self.readers.setdefault(operand.root, []).append((step, port))
        replaced = {node for step in self.steps for node in step.nodes}
        self.outside = {}
        for value, function in self.functions.items():
            if function.root in self.writers and _is_read_by_others(value, replaced, self.functions):
                self.outside.setdefault(function.root, []).append(value)

    def only_reader(self, root: ir.Value) -> tuple[Step, str] | None:
        """The one step that reads a tensor once, when nobody outside reads it."""
        readers = self.readers.get(root, [])
        return readers[0] if len(readers) == 1 and not self.outside.get(root) else None

    def source(self, operand: Operand, *ops: str) -> Step | None:
        """The step of one of these types that writes what an operand reads."""
        step = self.writers.get(operand.root)
        return step if step is not None and step.op in ops else None

    def form(self, step: Step, port: str) -> Table | None:
        """The function of the root that a step wants to be given: with `then`, where it is the only reader."""
        operand = step.operands[port]
        alone = operand.then is not None and self.only_reader(operand.root) is not None
        return composed(operand.table, operand.then) if alone else operand.table

    def drop(self, steps: Iterable[Step]) -> None:
        """Take steps out."""
        gone = set(steps)
        self.steps = [step for step in self.steps if step not in gone]
        self.refresh()


def _is_read_by_others(value: ir.Value, replaced: set[ir.Node], functions: Functions) -> bool:
    """Does a node read the value that is neither replaced nor itself a function of the same tensor?"""
    if value.is_graph_output():
        return True
    root = functions[value].root
    for node in value.consumers():
        if node in replaced:
            continue
        made = functions.get(node.outputs[0])
        if made is None or made.root is not root:
            return True
    return False


def regions(flow: Flow) -> Iterator[list[Step]]:
    """The connected parts: steps that read each other's results."""
    parent: dict[Step, Step] = {step: step for step in flow.steps}

    def find(step: Step) -> Step:
        while parent[step] is not step:
            parent[step] = parent[parent[step]]
            step = parent[step]
        return step

    for step in flow.steps:
        for operand in step.operands.values():
            if operand.root in flow.writers:
                parent[find(step)] = find(flow.writers[operand.root])
    parts: dict[Step, list[Step]] = {}
    for step in flow.steps:
        parts.setdefault(find(step), []).append(step)
    yield from parts.values()
