"""Following data movement by trying it: where each element of a tensor comes from, however the graph moves it there.

Exporters write the split into heads in a dozen ways. Instead of matching them, the nodes between two tensors are run
on the numbers 0, 1, 2, ... for a few sizes of the dimensions that are not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxcompress.passes.lower.transformer.lowering import Result, support
from onnxcompress.passes.simplify.editor import Editor, is_op, scalar_of, tensor_of

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]

MOVES = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Split", "Identity", "Expand",
     "SplitToSequence", "SequenceAt")
)  # fmt: skip
ARITHMETIC = frozenset(
    ("Concat", "Cast", "Add", "Sub", "Mul", "Div", "Min", "Max", "Range", "Where", "Equal", "ConstantOfShape", "Not",
     "And", "Or", "Trilu", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "CumSum")
)  # fmt: skip
"""What sizes, masks and positions are computed with."""

UNCHANGED = frozenset(("QuantizeLinear", "DequantizeLinear"))

TRIALS: tuple[tuple[int, int], ...] = ((2, 3), (3, 7))
"""Sizes of two unknown dimensions: what holds for both of these is not an accident."""

MOST_UNKNOWN = 4
"""Other unknown dimensions, each tried as either of the two."""


class Path(NamedTuple):
    """How a value is moved out of another.

    Attributes:
        source: where it comes from.
        factor: what it is multiplied by on the way.
        nodes: from the source to the value: movements, products with numbers and, if asked for, what else there is.
    """

    source: ir.Value
    factor: float
    nodes: tuple[ir.Node, ...]


def path_to(value: ir.Value, through: frozenset[str] = UNCHANGED) -> Path:
    """Up from a value through movements, products with numbers, and operators of `through`, as far as it goes."""
    factor, nodes = 1.0, []
    while (node := value.producer()) is not None:
        source = node.inputs[0] if node.inputs else None
        if source is not None and tensor_of(source) is None and is_op(node, *MOVES, *through):
            value = source
        elif (scaled := _scaled(node)) is not None:
            value, factor = scaled[0], factor * scaled[1]
        else:
            break
        nodes.append(node)
    return Path(value, factor, tuple(reversed(nodes)))


def _scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    """A product of a value with a number, as both."""
    if not is_op(node, "Mul", "Div") or any(value is None for value in node.inputs):
        return None
    for value, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        number = scalar_of(other)
        if number is None or not number or value is None or tensor_of(value) is not None:
            continue
        if node.op_type == "Mul":
            return value, number
        return (value, 1 / number) if value is node.inputs[0] else None
    return None


def trials(source: ir.Value) -> Iterator[tuple[tuple[int, int], dict[str, int]]]:
    """Sizes to try for the first two dimensions of a value, and the names that these dimensions have."""
    dimensions = list(source.shape or [])[:2]
    if len(dimensions) < 2:
        return
    for guess in TRIALS:
        names: dict[str, int] = {}
        sizes = []
        for dimension, size in zip(dimensions, guess, strict=True):
            if isinstance(dimension, int):
                size = dimension
            elif dimension.value is not None:
                size = names.setdefault(dimension.value, size)
            sizes.append(size)
        yield (sizes[0], sizes[1]), names


def assignments(values: Sequence[ir.Value], sizes: tuple[int, int], names: Sizes) -> Iterator[dict[str, int]]:
    """Sizes for all names of dimensions that shapes on the way to some values are made of, the likeliest first."""
    known = {name for value in values for node in _needed(value, {}) for name in _dimension_names(node)}
    unknown = sorted(known - names.keys())
    if len(unknown) > MOST_UNKNOWN:
        return
    for guess in itertools.product(dict.fromkeys(sizes), repeat=len(unknown)):
        yield {**names, **dict(zip(unknown, guess, strict=True))}


def _dimension_names(node: ir.Node) -> Iterator[str]:
    if is_op(node, "Shape") and node.inputs[0] is not None:
        for dimension in node.inputs[0].shape or []:
            if not isinstance(dimension, int) and dimension.value is not None:
                yield dimension.value


def evaluate(
    value: ir.Value, given: Mapping[ir.Value, Array], sizes: Sizes, same: Sequence[ir.Node] = ()
) -> Array | None:
    """A value where others are given; None where it cannot be told.

    Args:
        sizes: of the dimensions, by name.
        same: nodes that count as doing nothing to their first (or only not constant) input.
    """
    nodes = _needed(value, given)
    feeds = {v.name or "": array for v, array in given.items()}
    protos: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {}
    for node in nodes:
        if is_op(node, "Shape"):
            shape = _shape(node, sizes)
            if shape is None:
                return None
            constants[node.outputs[0].name or ""] = shape
            continue
        if node in same and not is_op(node, *MOVES):
            data = next(v for v in node.inputs if v is not None and tensor_of(v) is None)
            protos.append(onnx.helper.make_node("Identity", [data.name or ""], [node.outputs[0].name or ""]))
            continue
        if not is_op(node, *MOVES, *ARITHMETIC):
            return None
        protos.append(ir.to_proto(node))
        for operand in node.inputs:
            tensor = tensor_of(operand)
            if tensor is not None and operand is not None and operand not in given:
                constants[operand.name or ""] = tensor.numpy()
    return _run(protos, {**constants, **feeds}, value)


def _run(protos: Sequence[onnx.NodeProto], values: Mapping[str, Array], wanted: ir.Value) -> Array | None:
    name = wanted.name or ""
    if name in values:
        return values[name]
    infos = [onnx.helper.make_empty_tensor_value_info(n) for n in values]
    graph = onnx.helper.make_graph(list(protos), "moves", infos, [onnx.helper.make_empty_tensor_value_info(name)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    try:
        (found,) = ReferenceEvaluator(model).run(None, dict(values))
        return np.asarray(found)
    except (ValueError, IndexError, KeyError, TypeError, RuntimeError, AssertionError):
        return None  # sizes that do not go together


def _needed(value: ir.Value, given: Mapping[ir.Value, Any]) -> list[ir.Node]:
    """The nodes that a value is computed by, in order: up to given values, constants and shapes."""
    order: dict[ir.Node, None] = {}
    pending: list[tuple[ir.Value | None, bool]] = [(value, False)]
    while pending:
        current, done = pending.pop()
        if current is None or current in given or tensor_of(current) is not None:
            continue
        node = current.producer()
        if node is None or node in order:
            continue
        if done or is_op(node, "Shape"):
            order[node] = None
            continue
        pending.append((current, True))
        if is_op(node, *MOVES, *ARITHMETIC, *UNCHANGED):
            pending += [(operand, False) for operand in node.inputs]
    return list(order)


def leaves(value: ir.Value) -> list[ir.Value]:
    """What a value is computed of by movements and arithmetic: inputs of the graph, and what other nodes make."""
    found: dict[ir.Value, None] = {}
    for node in _needed(value, {}):
        if not is_op(node, "Shape", *MOVES, *ARITHMETIC, *UNCHANGED):
            found.update(dict.fromkeys(node.outputs))
            continue
        if not is_op(node, "Shape"):
            operands = [v for v in node.inputs if v is not None and v.producer() is None and tensor_of(v) is None]
            found.update(dict.fromkeys(operands))
    return list(found) or ([value] if value.producer() is None and tensor_of(value) is None else [])


def _shape(node: ir.Node, sizes: Sizes) -> Array | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    found = [d if isinstance(d, int) else sizes.get(d.value or "") for d in value.shape]
    if any(size is None for size in found):
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(found))
    return np.array(found[start:end], np.int64)


def read_only_by(nodes: Sequence[ir.Node], result: ir.Value) -> bool:
    """Whether nobody but these nodes reads what they make (shapes apart); `result` may be read by others."""
    inside = set(nodes)
    values = [out for node in nodes for out in node.outputs if out is not result]
    if any(out.is_graph_output() for out in values):
        return False
    return all(user in inside or is_op(user, "Shape") for out in values for user in out.consumers())


def transposed(editor: Editor, value: ir.Value, *, before: ir.Node) -> ir.Value:
    """[A, B, C] as [B, A, C]; a Transpose that does the same, before a QuantizeLinear too, is undone instead."""
    last = value.producer()
    assert value.dtype is not None
    if (source := _swapped(value)) is not None:
        return source
    if last is not None and is_op(last, "QuantizeLinear") and (source := _swapped(last.inputs[0])) is not None:
        result = Result(value.dtype, source.shape)
        return support(editor, "QuantizeLinear", [source, *last.inputs[1:]], {}, result, before=last)
    known = value.shape is not None and len(value.shape) == 3
    shape = ir.Shape([value.shape[1], value.shape[0], value.shape[2]]) if known and value.shape is not None else None
    return support(editor, "Transpose", [value], {"perm": [1, 0, 2]}, Result(value.dtype, shape), before=before)


def _swapped(value: ir.Value | None) -> ir.Value | None:
    """The tensor [B, A, C] that a Transpose makes `value` of."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "Transpose") or list(node.attributes.get_ints("perm", [])) != [1, 0, 2]:
        return None
    return node.inputs[0]
