"""Which tensors of a model can be observed, and the model that gives them as outputs.

Scope: the main graph. Values inside subgraphs (If, Loop, Scan) and inside function bodies come into being
many times or not at all in a run, and are not observed; what such a node takes in and gives out is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir

from onnxcompress.errors import CalibrationError

_RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}
_SOFTMAX = {"Softmax", "LogSoftmax"}
_ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention"}
_CARRIERS = {
    "Add", "Sub", "Mul", "Where", "Min", "Max", "Clip", "Cast", "Identity", "Concat", "Slice", "Gather",
    "Expand", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Tile",
}  # fmt: skip


def computed_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """The values of a graph that depend on its inputs (they included) or on chance, in graph order."""
    values = {v.name: v for v in graph.inputs if v.name and v.name not in graph.initializers}
    live: set[ir.Value] = set(values.values())
    for node in graph:
        if node.op_type in _RANDOM or any(v in live for v in _taken(node)):
            live.update(node.outputs)
            values.update({v.name: v for v in node.outputs if v.name})
    return values


def select(model: ir.Model, names: Iterable[str]) -> list[str]:
    """Check names against the model and put them in graph order.

    Raises:
        CalibrationError: a name is not in the main graph, or is a constant.
    """
    computed = computed_values(model.graph)
    wanted = set(names)
    unknown = sorted(wanted - computed.keys())
    if unknown:
        name = unknown[0]
        constant = name in model.graph.initializers or any(v.name == name for n in model.graph for v in n.outputs)
        reason = "is a constant: it needs no calibration" if constant else "is not in the model's main graph"
        raise CalibrationError(f"tensor {name!r} {reason}")
    return [name for name in computed if name in wanted]


def tapped(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of the model whose outputs are exactly the named values (no graph inputs among them)."""
    copy = model.clone()
    values = computed_values(copy.graph)
    copy.graph.outputs.clear()
    for name in names:
        # What ONNX Runtime infers counts; a stale shape or type in the file must not stop it.
        values[name].shape = None
        values[name].type = None
        copy.graph.outputs.append(values[name])
    return copy


def sized(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of the model whose outputs are the shapes of the named values, in their order."""
    copy = model.clone()
    values = computed_values(copy.graph)
    copy.graph.outputs.clear()
    for index, name in enumerate(names):
        node = ir.node("Shape", [values[name]])
        node.outputs[0].name = f"onnxcompress.shape.{index}"
        copy.graph.append(node)
        copy.graph.outputs.append(node.outputs[0])
    return copy


def only_masks(value: ir.Value) -> bool:
    """Whether a value ends in softmaxes (or attention masks) and nowhere else, by way of additions and moves.

    Minus infinity is a legal number there: it is how attention masks are written.
    """
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        uses = current.uses()
        if current.is_graph_output() or not uses:
            return False
        for node, index in uses:
            if node.op_type in _SOFTMAX or (node.op_type in _ATTENTION and index >= 3):
                continue
            if node.op_type not in _CARRIERS:
                return False
            pending += [v for v in node.outputs if v not in seen]
            seen.update(node.outputs)
    return True


def _taken(node: ir.Node) -> Iterator[ir.Value]:
    """What a node takes in, with what its subgraphs take from outside."""
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else attribute.as_graphs()
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            yield from graph.outputs
            for inner in graph:
                yield from _taken(inner)
