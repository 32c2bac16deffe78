"""Which unknown dimensions are equal: what onnx's shape inference leaves unsaid.

onnx's inference gives every dimension that it cannot compute a name of its own. Here names that must be equal
become one, so that shape arithmetic further on cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    STANDARD_DOMAINS,
    all_nodes,
    attribute,
    ints_of,
    is_op,
    static_shape,
)

Dim = int | str | None

BROADCASTING = frozenset(
    """
    Add Sub Mul Div Pow Max Min Mean Sum Where PRelu And Or Xor Equal Less LessOrEqual Greater
    GreaterOrEqual Mod
    """.split()  # noqa: SIM905 - a table is read as words
)
WINDOWED = frozenset(("Conv", "ConvInteger", "MaxPool", "AveragePool"))


def unify_dimensions(model: ir.Model) -> None:
    """Give equal dimensions one name, in place, in one walk over the nodes.

    Cases:
      1. Broadcasting ops: an axis on which all operands have one name, or 1.
      2. Conv and pools: a window of stride 1 that the pads make up for keeps its axis; any other gives an axis
         that is named by the window and the axis it ran over.
      3. Reshape whose one computed axis (-1) has as many elements as the one unknown axis of its data.
    """
    names = _Names()
    for node in all_nodes(model):
        if node.domain not in STANDARD_DOMAINS or not node.outputs or node.outputs[0].shape is None:
            continue
        if node.op_type in BROADCASTING:
            pairs = _broadcast(node, names)
        elif node.op_type in WINDOWED:
            pairs = _window(node, names)
        elif node.op_type == "Reshape":
            pairs = _reshape(node, names)
        else:
            continue
        for old, new in pairs:
            names.join(old, new)
    if names.parents:
        for node in all_nodes(model):
            for output in node.outputs:
                names.apply(output)


class _Names:
    """Names that inference made up, each standing for another name, or for itself."""

    def __init__(self) -> None:
        self.parents: dict[str, Dim] = {}

    def find(self, dim: Dim) -> Dim:
        while isinstance(dim, str) and dim in self.parents:
            dim = self.parents[dim]
        return dim

    def dims(self, value: ir.Value | None) -> list[Dim] | None:
        if value is None or value.shape is None:
            return None
        return [self.find(d if isinstance(d, int) else d.value) for d in value.shape]

    def join(self, old: Dim, new: Dim) -> None:
        old, new = self.find(old), self.find(new)
        # Only a made-up name may stand for something else: the names of inputs are the user's.
        if isinstance(old, str) and old.startswith("unk__") and new is not None and old != new:
            self.parents[old] = new

    def apply(self, value: ir.Value) -> None:
        dims = self.dims(value)
        if (
            dims is not None
            and value.shape is not None
            and dims != [d if isinstance(d, int) else d.value for d in value.shape]
        ):
            value.shape = ir.Shape(dims)


def _broadcast(node: ir.Node, names: _Names) -> Iterator[tuple[Dim, Dim]]:
    inputs = [names.dims(value) for value in node.inputs]
    result = names.dims(node.outputs[0])
    if result is None or any(dims is None for dims in inputs):
        return
    for i in range(1, len(result) + 1):
        wide = {dims[-i] for dims in inputs if dims is not None and len(dims) >= i and dims[-i] != 1}
        if len(wide) == 1:
            yield result[-i], next(iter(wide))


def _window(node: ir.Node, names: _Names) -> Iterator[tuple[Dim, Dim]]:
    data, result = names.dims(node.inputs[0]), names.dims(node.outputs[0])
    if data is None or result is None or len(data) != len(result) or len(data) < 3:
        return
    count = len(data) - 2
    kernel = attribute(node, "kernel_shape") or _weight_window(node, count)
    if kernel is None or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return
    strides, dilations = (
        attribute(node, "strides") or (1,) * count,
        attribute(node, "dilations") or (1,) * count,
    )
    pads = attribute(node, "pads") or (0,) * (2 * count)
    ceil = attribute(node, "ceil_mode", 0)
    for i in range(count):
        lost = dilations[i] * (kernel[i] - 1) - pads[i] - pads[i + count]
        if strides[i] == 1 and lost == 0:
            yield result[i + 2], data[i + 2]
        elif isinstance(data[i + 2], str) and len(str(data[i + 2])) < 60:
            yield result[i + 2], f"({data[i + 2]}-{lost})/{strides[i]}{'c' if ceil else ''}"


def _weight_window(node: ir.Node, count: int) -> tuple[int, ...] | None:
    shape = static_shape(node.inputs[1]) if is_op(node, "Conv", "ConvInteger") else None
    return None if shape is None else shape[-count:]


def _reshape(node: ir.Node, names: _Names) -> Iterator[tuple[Dim, Dim]]:
    data, result = names.dims(node.inputs[0]), names.dims(node.outputs[0])
    target = ints_of(node.inputs[1])
    if data is None or result is None or target is None or target.count(-1) != 1 or len(target) != len(result):
        return
    rest_in, rest_out = list(data), [d for d, t in zip(result, target, strict=True) if t != -1]
    for dim in list(rest_out):
        if isinstance(dim, str) and dim in rest_in:
            rest_in.remove(dim)
            rest_out.remove(dim)
    unknown = [d for d in rest_in if not isinstance(d, int)]
    if len(unknown) != 1 or any(not isinstance(d, int) for d in rest_out) or 0 in rest_in:
        return
    if _product(rest_in) == _product(rest_out):
        yield result[target.index(-1)], unknown[0]


def _product(dims: Sequence[Dim]) -> int:
    return prod(d for d in dims if isinstance(d, int))
