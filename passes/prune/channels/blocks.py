"""Whole blocks behind a residual: the branch goes, the shortcut stays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import root
from onnxcompress.passes.prune.channels.operators import OPERATORS
from onnxcompress.passes.prune.channels.trace import Trace
from onnxcompress.passes.prune.layers import name_of
from onnxcompress.passes.simplify.editor import Editor, dims_of, is_op, nodes_within, only_reader, tensor_of

NORMS = ("LayerNormalization", "RMSNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization")


@dataclass(frozen=True)
class Block:
    """A part of a model that can be left out: what follows reads what came in, in the place of what came out.

    Attributes:
        name: of the Add that ends a residual block; `layer.0`, `layer.1` and so on for transformer layers.
        kind: one residual branch, or a transformer layer.
        input, output: values of the same shape.
        nodes: names of the nodes that go, in graph order.
        parameters: elements of the constants that only they read.
    """

    name: str
    kind: Literal["residual", "layer"]
    input: str
    output: str
    nodes: tuple[str, ...]
    parameters: int

    def __str__(self) -> str:
        return f"{self.name}: {len(self.nodes)} nodes, {self.parameters} parameters, from {self.input} to {self.output}"


def find_blocks(model: ir.Model) -> list[Block]:
    """Residual blocks y = x + f(x) of the main graph, in graph order; a block may hold others.

    1. One operand of an Add is computed from the other, which no node of f makes; f may read other values (a mask).
    2. x and y have the same axes: nothing is broadcast.
    3. Nothing outside reads what f computes, and f has weights.
    """
    trace, positions = Trace(model, OPERATORS), _positions(model)
    found = [_residual(node, trace, positions) for node in model.graph if is_op(node, "Add")]
    return [_described(span, name_of(span.end), "residual", positions) for span in found if span is not None]


def find_transformer_layers(model: ir.Model) -> list[Block]:
    """The layers of a transformer, from hidden state to hidden state, named `layer.0`, `layer.1` and so on.

    The hidden state is carried by residual steps, each the next one's input: y = x + f(x), or y = norm(x + f(x)).
    A norm that closes the model, not a step, belongs to no layer. A step that multiplies two activations is
    attention. A layer is one or more steps of attention and the first step after them that is none (the
    feed-forward one).
    """
    trace, positions = Trace(model, OPERATORS), _positions(model)
    found = (_residual(node, trace, positions) for node in model.graph if is_op(node, "Add"))
    spans = [span for span in found if span is not None]
    starts = {span.start for span in spans}
    layers: list[_Span] = []
    pending: list[_Span] = []
    for step in (_with_norm(span, starts) for span in spans):
        if pending and pending[-1].output is not step.start:
            pending = []
        if step.attention:
            pending.append(step)
        elif pending:
            nodes = tuple(node for part in (*pending, step) for node in part.nodes)
            layers.append(_Span(pending[0].start, step.end, nodes, True))
            pending = []
    return [_described(span, f"layer.{i}", "layer", positions) for i, span in enumerate(layers)]


class DropBlocks(ir.passes.InPlacePass):
    """Leave blocks out: readers of a block's output read its input.

    Cases:
      1. Names that `find_blocks` or `find_transformer_layers` gives; both are looked up in the model as it is now.
      2. A block within another that goes too: gone with it.
      3. A block whose input is the model's input (or another output) and whose output is the model's output:
         refused, for a model's output keeps its name.

    Raises:
        ValueError: no such block, or case 3.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = tuple(dict.fromkeys(names))

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        known: Mapping[str, Block] = {b.name: b for b in (*find_blocks(model), *find_transformer_layers(model))}
        missing = [name for name in self.names if name not in known]
        if missing:
            raise ValueError(f"the model has no block {missing[0]!r}; it has {', '.join(known) or 'none'}")
        order = {output.name: i for i, node in enumerate(model.graph) for output in node.outputs}
        values = {output.name: output for node in model.graph for output in node.outputs}
        values.update({value.name: value for value in model.graph.inputs})
        editor = Editor(model)
        # Last first: what a block gives is still there when the block after it is left out.
        for block in sorted((known[name] for name in self.names), key=lambda b: order[b.output], reverse=True):
            old, new = values[block.output], values[block.input]
            if not (old.uses() or old.is_graph_output()):
                continue
            if not editor.replace(old, new):
                raise ValueError(f"block {block.name!r} leads from input to output of the model: it cannot be left out")
        return ir.passes.PassResult(model, bool(editor.changes))


@dataclass(frozen=True)
class _Span:
    """Nodes between a value and the output of `end`, which is one of them."""

    start: ir.Value
    end: ir.Node
    nodes: tuple[ir.Node, ...]
    attention: bool

    @property
    def output(self) -> ir.Value:
        return self.end.outputs[0]


def _residual(node: ir.Node, trace: Trace, positions: Mapping[ir.Node, int]) -> _Span | None:
    """The block that an Add ends; of both ways to see it (each operand a shortcut) the one that holds."""
    operands = [value for value in node.inputs if value is not None and tensor_of(value) is None]
    if len(operands) != 2:
        return None
    for start, branch in (operands, operands[::-1]):
        nodes = _between(start, branch, positions)
        if nodes is None or not _same_axes(trace, start, node.outputs[0]) or not _is_closed(nodes, node):
            continue
        if not any(_parameters(inner) for inner in nodes):
            continue
        ordered = tuple(sorted((*nodes, node), key=positions.__getitem__))
        attention = any(is_op(n, "MatMul") and all(tensor_of(v) is None for v in n.inputs) for n in nodes)
        return _Span(start, node, ordered, attention)
    return None


def _between(start: ir.Value, end: ir.Value, positions: Mapping[ir.Node, int]) -> set[ir.Node] | None:
    """The nodes that lie on a way from one value to another; None if there is none.

    Nodes that only lead in from the side (of a mask, of positions) are not among them.
    """
    maker = start.producer()
    first = positions[maker] if maker is not None and maker in positions else -1
    behind: set[ir.Node] = set()
    pending = [end]
    while pending:
        node = pending.pop().producer()
        if node is None or node in behind or positions.get(node, -1) <= first:
            continue
        behind.add(node)
        pending.extend(_read(node))
    reached = {start}
    nodes: set[ir.Node] = set()
    for node in sorted(behind, key=positions.__getitem__):
        if any(value in reached for value in _read(node)):
            nodes.add(node)
            reached.update(node.outputs)
    return nodes if end in reached and end is not start else None


def _read(node: ir.Node) -> Iterator[ir.Value]:
    for inner in (node, *nodes_within(node)):
        yield from (value for value in inner.inputs if value is not None)


def _is_closed(nodes: Collection[ir.Node], end: ir.Node) -> bool:
    """Whether only these nodes and `end` read what they compute."""
    inside = {*nodes, end}
    return not any(
        output.is_graph_output() or any(use.node not in inside for use in output.uses())
        for node in nodes
        for output in node.outputs
    )


def _same_axes(trace: Trace, a: ir.Value, b: ir.Value) -> bool:
    first, second = trace.axes_of(a), trace.axes_of(b)
    if first is None or second is None or len(first) != len(second):
        return False
    pairs = [(root(x), root(y)) for x, y in zip(first, second, strict=True)]
    return all(x is y or (x.size is not None and x.size == y.size) for x, y in pairs)


def _with_norm(span: _Span, starts: Collection[ir.Value]) -> _Span:
    """A step with the norm that alone reads its sum, where hidden states come out of norms."""
    node = only_reader(span.output)
    if node is None or not is_op(node, *NORMS):
        return span
    if is_op(span.start.producer(), *NORMS) or node.outputs[0] in starts:
        return _Span(span.start, node, (*span.nodes, node), span.attention)
    return span


def _positions(model: ir.Model) -> dict[ir.Node, int]:
    return {node: i for i, node in enumerate(model.graph)}


def _parameters(node: ir.Node) -> int:
    """Elements of a node's constants that have more than one axis longer than 1."""
    sizes = [dims_of(tensor) for value in _read(node) if (tensor := tensor_of(value)) is not None]
    return sum(prod(shape) for shape in sizes if sum(size > 1 for size in shape) > 1)


def _described(span: _Span, name: str, kind: Literal["residual", "layer"], positions: Mapping[ir.Node, int]) -> Block:
    nodes = sorted(set(span.nodes), key=positions.__getitem__)
    inside = set(nodes)
    constants = {
        value: tensor.size
        for node in nodes
        for value in _read(node)
        if (tensor := tensor_of(value)) is not None and all(use.node in inside for use in value.uses())
    }
    names = tuple(name_of(node) for node in nodes)
    return Block(name, kind, span.start.name or "", span.output.name or "", names, sum(constants.values()))
