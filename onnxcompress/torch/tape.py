"""Compiling a graph: every node becomes a step once, when the module is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from onnxcompress.torch.calls import call_of, function_of, label
from onnxcompress.torch.constants import tensor_of
from onnxcompress.torch.placement import Placement
from onnxcompress.torch.program import ABSENT, UNWANTED, Program, Step
from onnxcompress.torch.quantization import fake_quantize
from onnxcompress.torch.scales import equal_constants
from onnxcompress.torch.standard import Function, operator_of
from onnxcompress.torch.standard.integers import grid_of
from onnxcompress.torch.standard.products import linear
from onnxcompress.torch.types import FLOATS, Types
from onnxcompress.torch.weights import Weight, is_quantizer

Found = tuple[Function, list[ir.Value | None]]


@dataclass(frozen=True)
class Sources:
    """What a graph is compiled against.

    Attributes:
        constants: names of the constants.
        weights: those that are trained.
        load: load(name, on_host) is a function without inputs that gives a constant as it is now.
        placement: which values are on the host.
        imports: versions by domain.
        types: what the module computes in.
    """

    constants: Mapping[ir.Value, str]
    weights: Mapping[str, Weight]
    load: Callable[[str, bool], Function]
    placement: Placement
    imports: dict[str, int]
    types: Types


class Tape:
    """The steps of one graph. A value has a slot for each place it is needed in: its device, and the host."""

    def __init__(self, graph: ir.Graph, sources: Sources, outer: Tape | None = None) -> None:
        self.graph, self.sources, self.outer = graph, sources, outer
        self.steps: list[Step] = []
        self.count = 2
        self._slots: dict[tuple[ir.Value, bool], int] = {}
        self.captured: dict[ir.Value, int] = {}
        self.inputs = [self._place(value) for value in graph.inputs if value not in sources.constants]
        for node in graph:
            if not (node.op_type == "Constant" and node.outputs[0] in sources.constants):
                self._compile(node)

    def program(self, values: list[ir.Value], *, on_device: bool = False) -> Program:
        """What computes these values. Shape arithmetic stays on the host unless `on_device`."""
        outputs = [self.slot(value, not on_device and value in self.sources.placement.hosted) for value in values]
        inputs = [*self.inputs, *self.captured.values()]
        return Program.select(self.steps, self.count, inputs, outputs)

    def slot(self, value: ir.Value | None, on_host: bool) -> int:
        """Where a value is found; constants and copies between places become steps when they are first needed."""
        if value is None:
            return ABSENT
        name = self.sources.constants.get(value)
        if name is not None:
            return self._slots.get((value, on_host)) or self._add(self.sources.load(name, on_host), [], value, on_host)
        hosted = value in self.sources.placement.hosted
        own = self._slots.get((value, hosted))
        if own is None:
            own = self.captured[value] = self._place(value)
        if not hosted or on_host:
            return own
        return self._slots.get((value, False)) or self._add(self._to_device, [own], value, False)

    def _to_device(self, x: torch.Tensor) -> torch.Tensor:
        types = self.sources.types
        return x.to(types.device, types.of(ir.DataType.FLOAT) if x.dtype == torch.float32 else x.dtype)

    def _place(self, value: ir.Value) -> int:
        """A new slot."""
        self._slots[value, value in self.sources.placement.hosted] = self.count
        self.count += 1
        return self.count - 1

    def _add(self, function: Function, inputs: list[int], value: ir.Value, on_host: bool) -> int:
        slot = self._slots[value, on_host] = self.count
        self.count += 1
        self.steps.append(Step(function, tuple(inputs), (slot,), str(value.name)))
        return slot

    def _compile(self, node: ir.Node) -> None:
        if node.op_type == "If" and node.domain in ("", "ai.onnx"):
            function, inputs = self._branches(node)
        else:
            function, values = self._fused(node) or (
                function_of(node, self.sources.imports, self.sources.types), list(node.inputs),
            )  # fmt: skip
            operator, hosted = operator_of(node), self.sources.placement.is_hosted(node)
            numbers = operator.numbers if operator is not None else ()
            while values and values[-1] is None:
                values.pop()
            inputs = [self.slot(value, hosted or i in numbers) for i, value in enumerate(values)]
        outputs = [self._place(value) if value.name else UNWANTED for value in node.outputs]
        self.steps.append(Step(function, tuple(inputs), tuple(outputs), f"node {label(node)} ({node.op_type})"))

    def _branches(self, node: ir.Node) -> tuple[Function, list[int]]:
        """An If as a branch of Python: its inputs are the condition and what the two graphs read from outside."""
        tapes = [Tape(node.attributes[f"{name}_branch"].as_graph(), self.sources, self) for name in ("then", "else")]
        programs = [tape.program(list(tape.graph.outputs), on_device=True) for tape in tapes]
        outside = list(dict.fromkeys(value for tape in tapes for value in tape.captured))
        places = [[outside.index(value) for value in tape.captured] for tape in tapes]

        def branch(condition: torch.Tensor, *captured: Any) -> tuple[Any, ...]:
            chosen = 0 if bool(condition) else 1
            return tuple(programs[chosen].run([captured[i] for i in places[chosen]]))

        hosted = self.sources.placement.hosted
        return branch, [self.slot(node.inputs[0], True), *(self.slot(value, value in hosted) for value in outside)]

    def _fused(self, node: ir.Node) -> Found | None:
        """A node together with the one before it, which keeps its own step for whoever else wants its output."""
        if is_quantizer(node, "DequantizeLinear"):
            return self._quantized_weight(node) or self._quantized_pair(node)
        return self._linear(node) if node.op_type == "Add" and node.domain in ("", "ai.onnx") else None

    def _quantized_weight(self, node: ir.Node) -> Found | None:
        """DequantizeLinear of integers that are trained as floats."""
        name = self.sources.constants.get(node.inputs[0]) if node.inputs[0] is not None else None
        weight = self.sources.weights.get(name) if name is not None else None
        if weight is None or weight.quantized is None:
            return None
        grid = weight.quantized.grid
        return lambda x, scale, zero=None: fake_quantize(x, scale, zero, grid), list(node.inputs)

    def _quantized_pair(self, node: ir.Node) -> Found | None:
        """QuantizeLinear and DequantizeLinear with the same parameters."""
        first = node.inputs[0].producer() if node.inputs[0] is not None else None
        if first is None or not is_quantizer(first, "QuantizeLinear"):
            return None
        sides = [[*list(n.inputs)[1:], None, None][:2] for n in (first, node)]
        calls = [call_of(n, self.sources.imports, self.sources.types) for n in (first, node)]
        # The first alone says which integers there are, where neither has a zero point.
        grids = [grid_of(call) for call in calls]
        agree = all(equal_constants(a, b) for a, b in zip(*sides, strict=True))
        if not agree or (grids[0].axis, grids[0].block_size) != (grids[1].axis, grids[1].block_size):
            return None
        return lambda x, scale, zero=None: fake_quantize(x, scale, zero, grids[0]), list(first.inputs)

    def _linear(self, node: ir.Node) -> Found | None:
        """Add of a vector to the product with a matrix."""
        for value, bias in (tuple(node.inputs), tuple(reversed(node.inputs))):
            product = value.producer() if value is not None else None
            if value is None or product is None or product.op_type != "MatMul" or product.domain not in ("", "ai.onnx"):
                continue
            if len(value.uses()) != 1 or value.is_graph_output() or product.graph is not node.graph:
                continue
            shapes = [_shape(v) for v in (product.inputs[1], bias)]
            if len(shapes[0]) != 2 or len(shapes[1]) != 1 or shapes[0][1] != shapes[1][0]:
                continue
            kinds = [tensor_of(v) for v in (product.inputs[1], bias) if v is not None]
            if any(tensor is not None and ir.DataType(tensor.dtype) not in FLOATS for tensor in kinds):
                continue
            return linear, [*product.inputs, bias]
        return None


def _shape(value: ir.Value | None) -> tuple[Any, ...]:
    if value is None:
        return ()
    tensor = tensor_of(value)
    shape = tensor.shape if tensor is not None else value.shape
    return () if shape is None else tuple(shape)
