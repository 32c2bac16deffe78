"""Constants that are multiplied and added one after another: fewer nodes, or an order that weights can take in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.fuse.affine import ARITHMETIC, affine_of, linear_readers, same_rank
from onnxcompress.passes.simplify.editor import Array, Editor, only_reader, producer
from onnxcompress.passes.simplify.rules import Rule


class Merged(NamedTuple):
    op_type: str
    data: ir.Value
    constant: Array


def _constants_in_a_row(node: ir.Node) -> Merged | None:
    """Two additions, or two multiplications, of constants: one, where its constant is no larger than theirs."""
    second = affine_of(node)
    if second is None or only_reader(second.data) is not node:
        return None
    before = producer(second.data, *ARITHMETIC)
    first = affine_of(before) if before is not None else None
    if first is None:
        return None
    if second.scale is None and first.scale is None and first.shift is not None and second.shift is not None:
        op_type, a, b, total = "Add", first.shift, second.shift, first.shift + second.shift
    elif second.shift is None and first.shift is None and first.scale is not None and second.scale is not None:
        op_type, a, b, total = "Mul", first.scale, second.scale, first.scale * second.scale
    else:
        return None
    if total.size > max(a.size, b.size) or total.ndim > max(a.ndim, b.ndim) or not np.isfinite(total).all():
        return None
    return Merged(op_type, first.data, total)


def _emit_merged(node: ir.Node, found: Merged, editor: Editor) -> bool:
    assert node.outputs[0].dtype is not None
    constant = editor.constant(found.constant.astype(node.outputs[0].dtype.numpy()), f"{node.outputs[0].name}_c")
    new = editor.insert(found.op_type, [found.data, constant], before=node, like=node.outputs[0])
    return editor.replace(node.outputs[0], new.outputs[0])


class Distributed(NamedTuple):
    data: ir.Value
    scale: Array
    shift: Array


def _scale_of_sum(node: ir.Node) -> Distributed | None:
    """(x * a + b) * c: x * (a c) + b c, two nodes of three."""
    outer = affine_of(node)
    if outer is None or outer.scale is None or outer.shift is not None or only_reader(outer.data) is not node:
        return None
    add = producer(outer.data, "Add", "Sub")
    inner = affine_of(add) if add is not None else None
    if inner is None or inner.shift is None or inner.scale is not None or only_reader(inner.data) is not add:
        return None
    mul = producer(inner.data, "Mul", "Div")
    first = affine_of(mul) if mul is not None else None
    if first is None or first.scale is None or first.shift is not None:
        return None
    scale, shift = first.scale * outer.scale, inner.shift * outer.scale
    if scale.size > first.scale.size or shift.size > inner.shift.size:
        return None
    if scale.ndim > first.scale.ndim or shift.ndim > inner.shift.ndim:
        return None
    return Distributed(first.data, scale, shift)


def _emit_distributed(node: ir.Node, found: Distributed, editor: Editor) -> bool:
    """Write data * scale + shift."""
    return _emit(node, found.data, [("Mul", found.scale), ("Add", found.shift)], editor)


def _emit_shift_first(node: ir.Node, found: Distributed, editor: Editor) -> bool:
    """Write (data + shift) * scale."""
    return _emit(node, found.data, [("Add", found.shift), ("Mul", found.scale)], editor)


def _emit(node: ir.Node, value: ir.Value, steps: list[tuple[str, Array]], editor: Editor) -> bool:
    """Write operations with constants, one after another, in a node's place."""
    result = node.outputs[0]
    assert result.dtype is not None
    for op_type, number in steps:
        # Of two arrays of rank 0 numpy makes a number that is none.
        constant = editor.constant(np.asarray(number, result.dtype.numpy()), f"{result.name}_c")
        value = editor.insert(op_type, [value, constant], before=node, like=result).outputs[0]
    return editor.replace(result, value)


def _shift_past_scale(node: ir.Node) -> Distributed | None:
    """(x * a + b) read only by linear nodes: (x + b / a) * a, whose factor they then take into their weights.

    One element each, a not 0; the sum's readers as `_before_linear` demands.
    """
    outer = affine_of(node)
    if outer is None or outer.shift is None or outer.scale is not None or outer.shift.size != 1:
        return None
    if only_reader(outer.data) is not node or not same_rank(outer.data, outer.shift, node.outputs[0]):
        return None
    mul = producer(outer.data, "Mul", "Div")
    inner = affine_of(mul) if mul is not None else None
    if inner is None or inner.scale is None or inner.scale.size != 1 or (np.abs(inner.scale) < 1e-6).any():
        return None
    if linear_readers(node.outputs[0]) is None or not same_rank(inner.data, inner.scale, outer.data):
        return None
    shape = inner.scale.shape if inner.scale.ndim > outer.shift.ndim else outer.shift.shape
    return Distributed(
        inner.data,
        inner.scale.reshape(shape),
        (outer.shift.reshape(-1) / inner.scale.reshape(-1)).reshape(shape),
    )


CONSTANTS = (
    Rule("constants in a row", ARITHMETIC, _constants_in_a_row, _emit_merged),
    Rule("factor of a scaled sum", ("Mul", "Div"), _scale_of_sum, _emit_distributed),
    Rule("shift before factor", ("Add", "Sub"), _shift_past_scale, _emit_shift_first),
)
