"""The parts of a student that are fitted one after another, and the values of the teacher that each aims at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxcompress.calibration.taps import computed_values
from onnxcompress.distillation.matching import WEIGHTED, Shapes, match
from onnxcompress.errors import ModelError
from onnxcompress.extractor import extract

Granularity = Literal["block", "layer"]


@dataclass(frozen=True)
class Unit:
    """A part of a student between values.

    Attributes:
        end: the value it computes.
        target: the teacher's value of the same shape.
        starts: the values it reads: ends of earlier units, inputs of the model.
    """

    end: str
    target: str
    starts: tuple[str, ...]

    def cut(self, student: ir.Model) -> ir.Model:
        """The part as a model.

        Raises:
            ModelError: a type cannot be inferred.
        """
        return extract(student, inputs=self.starts, outputs=[self.end])


def wanted_ends(model: ir.Model) -> list[str]:
    """Outputs of the layers (nodes with constant weights) of the main graph, in its order."""
    computed = computed_values(model.graph)
    return [
        node.outputs[0].name for node in model.graph
        if node.op_type in WEIGHTED and node.outputs[0].name in computed
        and sum(value is not None and value.name in computed for value in node.inputs[:2]) == 1
    ]  # fmt: skip


def find_units(
    student: ir.Model, teacher: ir.Model, granularity: Granularity, own: Shapes, others: Shapes
) -> list[Unit]:
    """The units of a student in graph order.

    1. They end at the values that `match` pairs (block), or at the outputs of layers whose name and operator a layer
       of the teacher has (layer); and at the outputs of the model.
    2. Values whose shapes differ end no unit: what would have is part of the next one.

    Args:
        own, others: shapes of values of student and teacher on the same feed: block ends, layers' outputs, outputs.

    Raises:
        ModelError: the models have nothing in common to fit.
    """
    pairs = match(student, teacher, own, others, most=None) if granularity == "block" else _layers(student, teacher)
    names = {value.name: value.name for value in student.graph.outputs if value.name in others and value.name}
    pairs += [(name, name) for name in names if name not in dict(pairs)]
    fitting = {end: target for end, target in pairs if own.get(end) == others.get(target) is not None}
    if not fitting:
        raise ModelError("student and teacher have no values of the same shape that units could end at")
    ends = [name for name in computed_values(student.graph) if name in fitting]
    return [Unit(end, fitting[end], _starts(student, end, ends)) for end in ends]


def _layers(student: ir.Model, teacher: ir.Model) -> list[tuple[str, str]]:
    def named(model: ir.Model) -> dict[tuple[str, str], str]:
        wanted = set(wanted_ends(model))
        nodes = [node for node in model.graph if node.outputs[0].name in wanted and node.name]
        return {(str(node.name), node.op_type): str(node.outputs[0].name) for node in nodes}

    others = named(teacher)
    return [(name, others[key]) for key, name in named(student).items() if key in others]


def _starts(model: ir.Model, end: str, ends: Sequence[str]) -> tuple[str, ...]:
    """Where the computation of a value begins, going back no further than to ends of other units."""
    computed = computed_values(model.graph)
    inputs = {value.name for value in model.graph.inputs}
    stops = {name for name in ends if name != end}
    found: dict[str, None] = {}
    seen: set[ir.Value] = set()
    left = [computed[end]]
    while left:
        value = left.pop()
        if value in seen:
            continue
        seen.add(value)
        name = value.name or ""
        if name in stops or name in inputs:
            found[name] = None
            continue
        node = value.producer()
        left += [other for other in _read(node) if other.name in computed]
    return tuple(name for name in computed if name in found)


def _read(node: ir.Node | None) -> Iterable[ir.Value]:
    """What a node reads, in its subgraphs too."""
    if node is None:
        return
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _read(inner)
