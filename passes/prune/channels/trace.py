"""Following the channels of a model: the axes of every value, coupled as the operators couple them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, freeze, root, unify
from onnxcompress.passes.prune.channels.fixes import Entry, Fix
from onnxcompress.passes.prune.layers import name_of
from onnxcompress.passes.simplify.editor import (
    STANDARD_DOMAINS,
    dims_of,
    ints_of,
    may_hold_graphs,
    nodes_within,
    tensor_of,
)
from onnxcompress.passes.simplify.inference import InferShapes

Axes = list[Dim]
Role = Literal["makes", "reads", "follows"]
"""What the axis of a constant does: its positions make units, read them, or belong to them (a bias, a norm)."""

Rule = Callable[["Trace", ir.Node], "list[Axes | None] | None"]
"""Couples the axes of a node's inputs and gives those of its outputs (None: of unknown rank); None: not understood."""


@dataclass(frozen=True)
class Operator:
    """How an operator is followed.

    Attributes:
        rule: what it does to axes.
        shape: which of its inputs is a shape that the rule looks into.
        follow: the numbers of its output where its inputs hold shapes; None: it computes with them.
    """

    rule: Rule
    shape: int | None = None
    follow: Callable[[Trace, ir.Node], list[Entry] | None] | None = None


POSITIONS = "its positions are places, not channels"

VECTOR_LENGTH = 64
"""Longer integer constants are data, not shapes."""


@dataclass(frozen=True)
class Reader:
    """A node that sums over the channels of an activation, weighted by a constant or by another activation.

    Attributes:
        node, data, weight: the node, and which of its inputs are the activation and the weight.
        output: the Dim of the axis of the output that the weight makes.
    """

    node: ir.Node
    data: int
    weight: int
    output: Dim


@dataclass(frozen=True)
class Cost:
    """A node that multiplies and accumulates; its cost is in proportion to the size of each of these axes."""

    node: ir.Node
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Use:
    """A constant as a node reads it."""

    node: ir.Node
    index: int
    value: ir.Value
    axes: Axes
    roles: Mapping[int, Role]


class Trace:
    """The axes of every value of a model's main graph, after one walk over its nodes.

    Cases:
      1. Nodes whose operator is known: their axes are coupled; what cannot be coupled stays whole, with a reason.
      2. Graph inputs, graph outputs, values that a subgraph reads, all axes of nodes that no rule knows: kept whole.
      3. A constant with more than one axis longer than 1 has one set of axes however many nodes read it (tied
         weights are cut alike). Of vectors every reader has its own: equal biases may be stored once by chance.
      4. A shape computed with Shape, Gather, Slice, Concat and the like is followed number by number; an axis whose
         size goes into other arithmetic keeps its positions.

    Attributes:
        widths: couple channels that are normalized together or looked up in tables, too, in place of refusing.
        heads: batch axes of products of two activations.
        readers, costs: nodes that sum over channels, nodes that cost multiply-accumulates.
        shape_fixes: node -> the axes that the numbers in it (shapes, sizes, groups) speak of.
    """

    def __init__(self, model: ir.Model, operators: Mapping[str, Operator], *, widths: bool = False) -> None:
        self.model = model
        self.widths = widths
        self.heads: list[Dim] = []
        self.readers: list[Reader] = []
        self.costs: list[Cost] = []
        self.shape_fixes: dict[ir.Node, Fix] = {}
        self.opset = model.graph.opset_imports.get("", 0)
        self._operators = operators
        self._shapes = inferred_shapes(model)
        self._axes: dict[ir.Value, Axes | None] = {}
        self._vector_axes: dict[tuple[ir.Node, int], Axes] = {}
        self._roles: dict[tuple[ir.Node, int], dict[int, Role]] = {}
        self._symbols: dict[str, Dim] = {}
        self._vectors: dict[ir.Value, list[Entry]] = {}
        for value in model.graph.inputs:
            self.freeze_value(value, f"the model's input {value.name!r}")
        for node in model.graph:
            self._visit(node)
        for value in model.graph.outputs:
            self.freeze_value(value, f"the model's output {value.name!r}")

    def axes(self, node: ir.Node, index: int) -> Axes | None:
        """The axes of an input; None: it is absent, or its rank is not known."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return None
        if value.is_initializer() and _is_vector(value) and not value.is_graph_output():
            if (node, index) not in self._vector_axes:
                self._vector_axes[node, index] = self.own(value) or []
            return self._vector_axes[node, index]
        return self.axes_of(value)

    def axes_of(self, value: ir.Value) -> Axes | None:
        """The axes of a value, whoever reads it."""
        if value not in self._axes:
            self._axes[value] = self.own(value)
        return self._axes[value]

    def own(self, value: ir.Value) -> Axes | None:
        """New axes of a value, as its shape tells them; equal names are one Dim."""
        tensor = tensor_of(value)
        if tensor is not None:
            return [Dim(size) for size in dims_of(tensor)]
        shape = self._shapes.get(value.name or "")
        if shape is None:
            return None
        named = [self._symbols.setdefault(d, Dim()) if isinstance(d, str) else Dim(d) for d in shape]
        return named

    def own_axis(self, value: ir.Value, index: int, reason: str | None = POSITIONS) -> Dim:
        """A new axis of a value, as its shape tells it."""
        axes = self.own(value)
        dim = Dim() if axes is None or not -len(axes) <= index < len(axes) else axes[index]
        if reason is not None:
            freeze(dim, reason)
        return dim

    def rank(self, value: ir.Value) -> int | None:
        shape = self._shapes.get(value.name or "")
        return None if shape is None else len(shape)

    def couple(self, node: ir.Node, index: int, dims: Sequence[Dim]) -> bool:
        """Unify the axes of an input, if it is there, with these; False where the ranks differ."""
        axes = self.axes(node, index)
        if axes is None or len(axes) != len(dims):
            return axes is None and (index >= len(node.inputs) or node.inputs[index] is None)
        for axis, dim in zip(axes, dims, strict=True):
            unify(axis, dim)
        return True

    def set_role(self, node: ir.Node, index: int, axis: int, role: Role) -> None:
        self._roles.setdefault((node, index), {})[axis] = role

    def vector(self, value: ir.Value | None) -> list[Entry] | None:
        """The numbers of a tensor that holds a shape (rank 0 or 1), where they can be followed."""
        if value is None:
            return None
        if value in self._vectors:
            return self._vectors[value]
        tensor = tensor_of(value)
        numbers = ints_of(value) if tensor is not None and tensor.dtype.is_integer() else None
        return None if numbers is None or len(numbers) > VECTOR_LENGTH else list(numbers)

    def uses(self) -> Iterable[Use]:
        """Every constant of the main graph with axes, once for each node that reads it."""
        for node in self.model.graph:
            for index, value in enumerate(node.inputs):
                if value is None or tensor_of(value) is None or not value.is_initializer():
                    continue
                axes = self._vector_axes.get((node, index)) or self._axes.get(value)
                if axes:
                    yield Use(node, index, value, axes, self._roles.get((node, index), {}))

    def freeze_value(self, value: ir.Value, reason: str) -> None:
        """Let all axes of a value, and all axes whose size it holds, keep their positions."""
        for dim in self.axes_of(value) or ():
            freeze(dim, reason)
        self.freeze_sizes(value, reason)

    def freeze_sizes(self, value: ir.Value | None, reason: str) -> None:
        """Let the axes whose sizes a shape holds keep their positions."""
        for entry in self.vector(value) or ():
            if isinstance(entry, Dim):
                freeze(entry, reason)

    def _visit(self, node: ir.Node) -> None:
        if may_hold_graphs(node):
            for inner in nodes_within(node):
                for value in inner.inputs:
                    if value is not None and (value in self._axes or value.graph is self.model.graph):
                        self.freeze_value(value, f"a subgraph of {title(node)} reads it")
        operator = self._operators.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        result = None if operator is None else operator.rule(self, node)
        if operator is None or result is None:
            self._refuse(node)
            result = []
        else:
            self._follow(operator, node)
        for i, output in enumerate(node.outputs):
            axes = result[i] if i < len(result) else None
            self._axes[output] = self._agreed(output, axes, node)

    def _follow(self, operator: Operator, node: ir.Node) -> None:
        """The numbers of a shape, handed on; an axis whose size meets arithmetic stays whole."""
        entries = None if operator.follow is None else operator.follow(self, node)
        if entries is not None:
            self._vectors[node.outputs[0]] = entries
            return
        for index, value in enumerate(node.inputs):
            if index != operator.shape:
                self.freeze_sizes(value, f"{title(node)} computes with its size")

    def _refuse(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            for dim in self.axes(node, index) or ():
                freeze(dim, f"{title(node)} is not followed")
            self.freeze_sizes(value, f"{title(node)} computes with its size")

    def _agreed(self, output: ir.Value, axes: Axes | None, node: ir.Node) -> Axes | None:
        """A rule's axes, with what shape inference knows of them; without a rule's, frozen ones."""
        own = self.own(output)
        if axes is None:
            for dim in own or ():
                freeze(dim, f"{title(node)} is not followed")
            return own
        if own is not None and len(own) == len(axes):
            for dim, known in zip(axes, own, strict=True):
                if root(dim).size is None and root(dim).kind == "leaf" and root(known).kind == "leaf":
                    unify(dim, known)
        return axes


def _is_vector(constant: ir.Value) -> bool:
    """Whether at most one axis of a constant is longer than 1."""
    tensor = tensor_of(constant)
    return tensor is not None and sum(size > 1 for size in dims_of(tensor)) <= 1


def title(node: ir.Node) -> str:
    return f"{name_of(node)} ({node.op_type})"


def whole(axes: Iterable[Axes | None], reason: str) -> None:
    """Let all these axes keep their positions."""
    for group in axes:
        for dim in group or ():
            freeze(dim, reason)


def broadcast(trace: Trace, operands: Sequence[Axes], output: ir.Value, node: ir.Node) -> Axes:
    """The axes of an elementwise result (ONNX multidirectional broadcasting); those that are longer than 1 are one.

    An axis of unknown size may be 1 when the model runs: an axis that it meets keeps its positions.
    """
    result: Axes = []
    rank = max((len(axes) for axes in operands), default=0)
    for i in range(rank, 0, -1):
        met = {root(axes[-i]): None for axes in operands if len(axes) >= i and root(axes[-i]).size != 1}
        known = [dim for dim in met if dim.size is not None]
        for dim in known[1:]:
            unify(known[0], dim)
        if known and len(known) < len(met):
            freeze(known[0], f"{title(node)} may broadcast it: the size of the axis that it meets is not known")
        if not met:
            result.append(Dim(1))
        elif known or len(met) == 1:
            result.append(next(iter(known or met)))
        else:
            for dim in met:
                freeze(dim, f"{title(node)} meets it with an axis of another unknown size")
            result.append(trace.own_axis(output, -i, None))
    return result


def inferred_shapes(model: ir.Model) -> dict[str, tuple[int | str | None, ...]]:
    """The shape of every value of the main graph that shape inference knows."""
    copy = model.clone()
    InferShapes(working=True)(copy)
    return shapes_of(copy)


def shapes_of(model: ir.Model) -> dict[str, tuple[int | str | None, ...]]:
    """The shapes that a model records, by name of the value: numbers, names, None for unknown."""
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return {
        value.name: tuple(d if isinstance(d, int) else d.value for d in value.shape)
        for value in values
        if value.name and value.shape is not None
    }
