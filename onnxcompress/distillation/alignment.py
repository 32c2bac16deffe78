"""Student and teacher brought together: which inputs and outputs they share."""

from __future__ import annotations

import itertools

import onnx_ir as ir

from onnxcompress.distillation.outputs import float_outputs
from onnxcompress.errors import ModelError


def wider_inputs(student: ir.Model, teacher: ir.Model) -> ir.Model:
    """The model of the two that takes all the inputs of the other: the one that data is checked against.

    Raises:
        ModelError: each takes an input that the other does not, or one is of another type or rank.
    """
    own, other = _inputs(student), _inputs(teacher)
    for name in own.keys() & other.keys():
        if own[name].dtype != other[name].dtype:
            raise ModelError(
                f"input {name!r} is {own[name].dtype} in the student and {other[name].dtype} in the teacher"
            )
        ranks = [None if value.shape is None else len(value.shape) for value in (own[name], other[name])]
        if None not in ranks and ranks[0] != ranks[1]:
            raise ModelError(f"input {name!r} has {ranks[0]} axes in the student and {ranks[1]} in the teacher")
    if own.keys() >= other.keys():
        return student
    if other.keys() >= own.keys():
        return teacher
    raise ModelError(
        f"the student takes {', '.join(sorted(own))}, the teacher {', '.join(sorted(other))}: "
        "one must take all inputs of the other, under the same names"
    )


def aligned(teacher: ir.Model, student: ir.Model) -> ir.Model:
    """A copy of the teacher with those outputs only that it shares with the student, under the student's names.

    Float outputs are shared by name; where none is, by order, if both have equally many.

    Raises:
        ModelError: they share none.
    """
    result = teacher.clone()
    wanted, own = float_outputs(result), float_outputs(student)
    names = {value.name for value in own}
    shared = [(value, value.name or "") for value in wanted if value.name in names]
    if not shared and wanted and len(wanted) == len(own):
        shared = [(value, twin.name or "") for value, twin in zip(wanted, own, strict=True)]
    if not shared:
        raise ModelError(
            f"the student gives {_listed(own)}, the teacher {_listed(wanted)}: they share no float output; "
            "name the student's as the teacher's"
        )
    new = [value if value.name == name else _renamed(result.graph, value, name) for value, name in shared]
    result.graph.outputs.clear()
    result.graph.outputs.extend(new)
    return result


def _inputs(model: ir.Model) -> dict[str, ir.Value]:
    return {value.name: value for value in model.graph.inputs if value.name and value.name not in _defaults(model)}


def _defaults(model: ir.Model) -> set[str]:
    return set(model.graph.initializers)


def _renamed(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph.all_nodes() for v in node.outputs)]
    taken = {other.name for other in values}
    for other in values:
        if other.name == name:
            other.name = next(free for i in itertools.count() if (free := f"{name}_{i}") not in taken)
    node = ir.node("Identity", [value])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, value.type, value.shape
    graph.append(node)
    return node.outputs[0]


def _listed(values: list[ir.Value]) -> str:
    return ", ".join(value.name or "" for value in values) or "nothing"
