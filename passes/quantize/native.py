"""Placement for the operators of this project: everything between convolutions is int8, activations are tables.

A convolution, a sum of two feature maps, a pooling and so on (a *core*) writes uint8. What stands between one core and
the next and works element by element (HardSwish, SiLU, products and sums with numbers) has no pair inside: whatever it
is, 256 values tell its whole result, so it is computed in float from one uint8 tensor and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import onnx_ir as ir

from onnxcompress.passes.quantize import roles

CONVOLUTIONS = frozenset(("Conv", "ConvTranspose"))

UNARY = frozenset((
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish",
    "Tanh", "Softplus", "Softsign", "Mish", "Gelu", "QuickGelu", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg",
    "Reciprocal", "Clip", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos",
))  # fmt: skip
"""Operators that change each element by itself, whatever its neighbours are."""

BINARY = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"))
"""The same, of two tensors or of a tensor and a number."""

PAIRED = frozenset(("Add", "Sub", "Mul"))
"""Have an operator of our own for two different feature maps."""

POOLS = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"))

SAME_VALUES = frozenset(("MaxPool", "Resize", "Concat"))
"""Write values that they read: worth int8 only where an int8 core reads on."""


def is_elementwise(node: ir.Node) -> bool:
    """Does the node compute each element of its output from the same element of its inputs and from numbers?

    1. A unary operator; of Clip the bounds are constant.
    2. A binary one, whose constant operands have one element (and rank 0 or 1: no dimension is added).
    """
    if node.domain not in roles.STANDARD:
        return (node.domain, node.op_type) == ("com.microsoft", "QuickGelu")
    if node.op_type in UNARY:
        return all(value is None or roles.is_constant(value) for value in node.inputs[1:])
    if node.op_type not in BINARY or len(node.inputs) != 2:
        return False
    return all(not roles.is_constant(value) or _is_number(value) for value in node.inputs)


def _is_number(value: ir.Value | None) -> bool:
    assert value is not None and value.const_value is not None
    return roles.constant_scalar(value) is not None and len(value.const_value.shape) <= 1


class NativePlacement:
    """Finds the cores of a graph and the tensors that get pairs.

    Attributes:
        cores: nodes other than convolutions that run in int8, in graph order.
        tensors: what gets a Q/DQ pair: inputs of cores, and outputs of those whose result is used in int8.
        groups: pairs of tensors that must share scale and zero point.
        limits: tensor name -> interval outside which all its readers are constant.
    """

    def __init__(self, graph: ir.Graph, convolutions: Iterable[ir.Node], excluded: Callable[[ir.Node], bool]) -> None:
        self.graph = graph
        self.excluded = excluded
        self.inside: dict[ir.Node, None] = dict.fromkeys(convolutions)
        self.sources: dict[ir.Value, ir.Value] = {}
        """A float value -> the core's output of which it is an element-wise function."""
        self._find_cores()
        self._drop_idle()
        self.cores = [node for node in graph if node in self.inside and node.op_type not in CONVOLUTIONS]
        self.tensors = self._tensors()
        self.groups = [pair for node in self.cores for pair in _shared(node)]
        self.limits = {name: limit for name, value in self.tensors.items() if (limit := _limits(value, self.inside))}

    def _find_cores(self) -> None:
        for node in self.graph:
            out = node.outputs[0]
            if node in self.inside:
                self._add(node)
            elif out in self.sources or self.excluded(node) or not roles.is_float(out):
                continue
            elif is_elementwise(node):
                roots = {self.sources.get(value) for value in roles.activation_inputs(node)}
                if None in roots or not roots:
                    continue
                if len(roots) == 1:
                    self.sources[out] = next(iter(roots)) or out
                elif node.op_type in PAIRED and _is_paired(node):
                    self._add(node)
            elif _is_core(node) and all(value in self.sources for value in _data_inputs(node)):
                self._add(node)

    def _add(self, node: ir.Node) -> None:
        self.inside[node] = None
        out = roles.fused_output(node)
        if not out.is_graph_output():
            self.sources[out] = out

    def _drop_idle(self) -> None:
        """Take out cores that only move values to float readers: their inputs are turned to float instead."""
        for node in reversed(list(self.inside)):
            if node.op_type in SAME_VALUES and not self._is_read_by_core(roles.fused_output(node)):
                del self.inside[node]

    def _is_read_by_core(self, root: ir.Value) -> bool:
        """Does a core read the value, or an element-wise function of it?"""
        pending, seen = [root], {root}
        while pending:
            for node in pending.pop().consumers():
                out = node.outputs[0]
                if node in self.inside:
                    return True
                if self.sources.get(out) is root and out not in seen:
                    seen.add(out)
                    pending.append(out)
        return False

    def _is_used(self, root: ir.Value) -> bool:
        """Is anything made of the value that int8 helps: a core's input, or a function that is a table?"""
        if root not in self.sources:
            return False
        return any(node in self.inside or self.sources.get(node.outputs[0]) is root for node in root.consumers())

    def _tensors(self) -> dict[str, ir.Value]:
        values: dict[ir.Value, None] = {}
        for node in self.inside:
            values |= dict.fromkeys(_data_inputs(node))
            out = roles.fused_output(node)
            if node.op_type not in CONVOLUTIONS or self._is_used(out):
                values[out] = None
        return {value.name or "": value for value in values}


def _data_inputs(node: ir.Node) -> list[ir.Value]:
    if node.op_type in CONVOLUTIONS | POOLS or node.op_type == "Resize":
        return [value for value in node.inputs[:1] if value is not None]
    return roles.activation_inputs(node)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _is_paired(node: ir.Node) -> bool:
    """Two feature maps of one rank 4."""
    return all(_rank(value) == 4 for value in node.inputs)


def _is_core(node: ir.Node) -> bool:
    """Has the node, other than a convolution or a product, an operator of our own for feature maps?"""
    if node.domain not in roles.STANDARD or _rank(node.inputs[0]) != 4:
        return False
    match node.op_type:
        case "Concat":
            return node.attributes.get_int("axis", 0) in (1, -3) and all(not roles.is_constant(v) for v in node.inputs)
        case "MaxPool":
            return len(node.outputs) == 1 and not node.attributes.get_int("storage_order", 0)
        case "Resize":
            return node.attributes.get_string("mode", "nearest") == "nearest"
        case "ReduceMean":
            return bool(node.attributes.get_int("keepdims", 1)) and _axes(node) == {2, 3}
        case _:
            return node.op_type in POOLS


def _axes(node: ir.Node) -> set[int]:
    if len(node.inputs) > 1 and node.inputs[1] is not None and node.inputs[1].const_value is not None:
        return {int(axis) % 4 for axis in node.inputs[1].const_value.numpy().reshape(-1)}
    return {axis % 4 for axis in node.attributes.get_ints("axes", ())}


def _shared(node: ir.Node) -> Iterable[tuple[str, str]]:
    """Tensors around a core that must, or had better, have one scale.

    Of a concatenation only those inputs that nobody else reads: they are written in its scale at once. Another one
    keeps the scale that suits its other readers.
    """
    out = node.outputs[0].name or ""
    if node.op_type in ("MaxPool", "Resize"):
        yield _data_inputs(node)[0].name or "", out
    elif node.op_type == "Concat":
        yield from ((value.name or "", out) for value in set(_data_inputs(node)) if len(value.uses()) == 1)


def _limits(value: ir.Value, inside: dict[ir.Node, None], depth: int = 8) -> tuple[float, float] | None:
    """The interval outside which every reader's result is constant; None where there is no end on either side."""
    low, high = math.inf, -math.inf
    if value.is_graph_output() or depth == 0:
        return None
    for node in value.consumers():
        bounds = None if node in inside else _reader_limits(node, value, inside, depth)
        if bounds is None:
            return None
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return (low, high) if low < high and (low, high) != (-math.inf, math.inf) else None


def _reader_limits(
    node: ir.Node, value: ir.Value, inside: dict[ir.Node, None], depth: int
) -> tuple[float, float] | None:
    if not is_elementwise(node):
        return None
    known = _saturation(node)
    if known is not None:
        return known
    if node.op_type == "Mul" and set(node.inputs) != {value}:
        gate = next((v.producer() for v in node.inputs if v is not value and v is not None), None)
        bounds = roles.saturation(gate) if gate is not None and value in gate.inputs else None
        if bounds is not None:
            return bounds[0], math.inf
    numbers = [number for v in node.inputs if (number := roles.constant_scalar(v)) is not None]
    if len(numbers) != 1 or node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    after = _limits(node.outputs[0], inside, depth - 1)
    return None if after is None else _before(node, numbers[0], after)


def _saturation(node: ir.Node) -> tuple[float, float] | None:
    if node.op_type == "QuickGelu":
        alpha = node.attributes.get_float("alpha", 1.702)
        return (-10.0 / alpha, math.inf) if alpha > 0 else None
    if node.op_type in ("Sigmoid", "HardSigmoid") and any(
        reader.op_type == "Mul" and node.inputs[0] in reader.inputs for reader in node.outputs[0].consumers()
    ):
        bounds = roles.saturation(node)  # of x * gate(x), which grows above
        return None if bounds is None else (bounds[0], math.inf)
    return roles.saturation(node)


def _before(node: ir.Node, number: float, after: tuple[float, float]) -> tuple[float, float] | None:
    """The interval of x that an affine map of it takes to `after`."""
    swapped = roles.is_constant(node.inputs[0])
    match node.op_type:
        case "Add":
            ends = [after[0] - number, after[1] - number]
        case "Sub":
            ends = [number - after[0], number - after[1]] if swapped else [after[0] + number, after[1] + number]
        case "Mul" if number != 0:
            ends = [after[0] / number, after[1] / number]
        case "Div" if not swapped:
            ends = [after[0] * number, after[1] * number]
        case _:
            return None
    return min(ends), max(ends)
