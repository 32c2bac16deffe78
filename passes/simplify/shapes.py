"""Shape arithmetic: what can be said about small integer tensors before the model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    STANDARD_DOMAINS,
    Editor,
    all_nodes,
    attribute,
    ints_of,
    tensor_of,
)

Element = int | str | None
"""One number: known, named (a dimension, or an expression of some), or unknown."""

MOST_ELEMENTS = 64
LONGEST_NAME = 120


@dataclass(frozen=True)
class Known:
    """A small integer tensor of rank 0 or 1, element by element."""

    elements: tuple[Element, ...]
    rank: int
    dtype: ir.DataType

    @property
    def ints(self) -> tuple[int, ...] | None:
        return self.elements if all(isinstance(e, int) for e in self.elements) else None  # type: ignore[return-value]


class FoldShapes(ir.passes.InPlacePass):
    """Follow shapes through the arithmetic done on them.

    Dimensions carry names (those of the inputs, or names that inference gave to unknown ones); equal names are
    equal dimensions, as the ONNX standard has it.

    Cases:
      1. A tensor computed from shapes whose elements are all known: a constant.
      2. Reshape to a shape whose elements are known, or dimensions of its data at the same place, with at most
         one left over: to a constant shape of numbers, 0 and -1.
      3. Expand to the dimensions that the data has: nothing.
      4. The same named numbers computed twice in one graph: once.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor = Editor(model)
        known: dict[ir.Value, Known] = {}
        first: dict[tuple[ir.Graph | None, Known], ir.Value] = {}
        for node in list(all_nodes(model)):
            if node.graph is None or node.domain not in STANDARD_DOMAINS or len(node.outputs) != 1:
                continue
            if self._use(node, known, editor):
                continue
            found = _evaluate(node, known)
            if found is None:
                continue
            output = node.outputs[0]
            known[output] = found
            if found.ints is not None:
                array = np.array(found.ints, found.dtype.numpy())
                array = array.reshape(()) if found.rank == 0 else array
                editor.put_constant(output, array)
            elif all(e is not None for e in found.elements):
                earlier = first.setdefault((node.graph, found), output)
                if earlier is not output and earlier.producer() is not None and _attached(earlier):
                    editor.replace(output, earlier)
                elif earlier is not output:
                    first[node.graph, found] = output
        return ir.passes.PassResult(model, bool(editor.changes))

    def _use(self, node: ir.Node, known: dict[ir.Value, Known], editor: Editor) -> bool:
        if node.op_type == "Reshape":
            return self._reshape(node, known, editor)
        if node.op_type == "Expand":
            data, shape = node.inputs[0], _known(node.inputs[1], known)
            if data is None or data.shape is None or shape is None or len(shape.elements) > len(data.shape):
                return False
            dims = _dims(data)[len(data.shape) - len(shape.elements) :]
            if all(e == 1 or (e is not None and e == d) for e, d in zip(shape.elements, dims, strict=True)):
                return editor.replace(node.outputs[0], data)
        return False

    def _reshape(self, node: ir.Node, known: dict[ir.Value, Known], editor: Editor) -> bool:
        data, shape = node.inputs[0], _known(node.inputs[1], known)
        if data is None or shape is None or tensor_of(node.inputs[1]) is not None or attribute(node, "allowzero", 0):
            return False
        dims = _dims(data) if data.shape is not None else ()
        target: list[int] = []
        for i, element in enumerate(shape.elements):
            if isinstance(element, int):
                target.append(element)
            else:
                target.append(0 if element is not None and i < len(dims) and dims[i] == element else -1)
        if target.count(-1) > 1:
            return False
        editor.set_input(node, 1, editor.constant(np.array(target, np.int64), f"{node.outputs[0].name}_shape"))
        return False  # the node stays; other rules may still look at it


def _attached(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.graph is not None


def _dims(value: ir.Value) -> tuple[Element, ...]:
    assert value.shape is not None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def _known(value: ir.Value | None, known: dict[ir.Value, Known]) -> Known | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    tensor = tensor_of(value)
    if tensor is None or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32) or tensor.size > MOST_ELEMENTS:
        return None
    ints = ints_of(value)
    return None if ints is None else Known(ints, len(tensor.shape), tensor.dtype)


def _evaluate(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    if node.op_type == "Shape":
        return _shape(node)
    function = FUNCTIONS.get(node.op_type)
    if function is None:
        return None
    inputs = [_known(value, known) for value in node.inputs]
    if (
        not inputs
        or inputs[0] is None
        or any(k is None and v is not None for k, v in zip(inputs, node.inputs, strict=True))
    ):
        return None
    found = function(node, [k for k in inputs if k is not None])
    if found is None or len(found.elements) > MOST_ELEMENTS:
        return None
    return found


def _shape(node: ir.Node) -> Known | None:
    data = node.inputs[0]
    if data is None or data.shape is None:
        return None
    dims = _dims(data)
    start, end = attribute(node, "start", 0), attribute(node, "end")
    return Known(dims[slice(start, end)], 1, ir.DataType.INT64)


def _gather(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    data, indices = inputs
    if indices.ints is None or data.rank != 1 or attribute(node, "axis", 0) not in (0, -1):
        return None
    if any(not -len(data.elements) <= i < len(data.elements) for i in indices.ints):
        return None
    return Known(tuple(data.elements[i] for i in indices.ints), indices.rank, data.dtype)


def _concat(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    if any(k.rank != 1 for k in inputs):
        return None
    return Known(tuple(e for k in inputs for e in k.elements), 1, inputs[0].dtype)


def _slice(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    data, bounds = inputs[0], [k.ints for k in inputs[1:]]
    if data.rank != 1 or len(bounds) < 2 or any(b is None or len(b) != 1 for b in bounds):
        return None
    values = [b[0] for b in bounds if b is not None]
    step = values[3] if len(values) > 3 else 1
    if step <= 0:
        return None
    return Known(data.elements[slice(values[0], values[1], step)], 1, data.dtype)


def _unsqueeze(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    return Known(inputs[0].elements, 1, inputs[0].dtype) if inputs[0].rank == 0 else None


def _squeeze(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    return Known(inputs[0].elements, 0, inputs[0].dtype) if len(inputs[0].elements) == 1 else None


def _reshape(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    target = inputs[1].ints
    if target is None or len(target) > 1:
        return None
    return Known(inputs[0].elements, len(target), inputs[0].dtype)


def _cast(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    dtype = ir.DataType(attribute(node, "to", 0))
    if dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    return Known(inputs[0].elements, inputs[0].rank, dtype)


def _same(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    return inputs[0]


def _arithmetic(node: ir.Node, inputs: Sequence[Known]) -> Known | None:
    if len(inputs) != 2:
        return None
    a, b = inputs
    length = max(len(a.elements), len(b.elements))
    if {len(a.elements), len(b.elements)} - {1, length}:
        return None
    left = a.elements * length if len(a.elements) == 1 else a.elements
    right = b.elements * length if len(b.elements) == 1 else b.elements
    elements = tuple(_combine(node.op_type, x, y) for x, y in zip(left, right, strict=True))
    return Known(elements, max(a.rank, b.rank), a.dtype)


def _combine(op_type: str, x: Element, y: Element) -> Element:
    if isinstance(x, int) and isinstance(y, int):
        if op_type == "Div":
            return None if y == 0 else int(x / y) if abs(x) < 1 << 52 else None
        return {"Add": x + y, "Sub": x - y, "Mul": x * y}[op_type]
    if x is None or y is None:
        return None
    if (op_type in ("Mul", "Div") and y == 1) or (op_type in ("Add", "Sub") and y == 0):
        return x
    if (op_type == "Mul" and x == 1) or (op_type == "Add" and x == 0):
        return y
    if op_type == "Sub" and x == y:
        return 0
    if op_type in ("Add", "Mul"):
        x, y = sorted((x, y), key=str)
    name = f"({x} {op_type} {y})"
    return name if len(name) <= LONGEST_NAME else None


FUNCTIONS: dict[str, Callable[[ir.Node, Sequence[Known]], Known | None]] = {
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Cast": _cast,
    "Identity": _same,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
}
