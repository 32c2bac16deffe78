"""Space-to-depth before a convolution, as detectors have it, inside the convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    Editor,
    attribute,
    ints_of,
    is_op,
    only_reader,
    producer,
    static_shape,
    tensor_of,
)

Array = np.ndarray[Any, Any]

TO_THE_END = 1 << 30
"""Slices that end there or later end with their tensor."""


class FoldFocus(ir.passes.InPlacePass):
    """Conv(Concat(x[::r, ::r], x[1::r, ::r], ...)) becomes one Conv of x with an r times larger kernel and stride.

    The slices that are no multiple of r long differ in size, and cannot be joined; so what r takes is whole, and the
    large convolution gives what the small one did: out[y] reads x[r * (s * y - p + k) + phase].

    1. The Concat joins channels, and each of its inputs is a Slice of one tensor of four dimensions: rows and columns,
       from a start below r, to the end, in steps of r > 1. Phases that are left out get zero weights.
    2. Its one reader is a Conv with a constant float weight, without groups and dilation, with padding in numbers.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor = Editor(model)
        for node in list(model.graph):
            if is_op(node, "Conv") and node.graph is not None:
                focus = _find(node)
                if focus is not None:
                    _fold(node, focus, editor)
        return ir.passes.PassResult(model, editor.changes > 0)


@dataclass(frozen=True)
class _Focus:
    """x, the steps r, and the phase (row, column) of each input of the concatenation."""

    x: ir.Value
    steps: int
    phases: tuple[tuple[int, int], ...]


def _find(conv: ir.Node) -> _Focus | None:
    concat = producer(conv.inputs[0], "Concat")
    weight = tensor_of(conv.inputs[1])
    if concat is None or only_reader(concat.outputs[0]) is not conv or attribute(concat, "axis") not in (1, -3):
        return None
    if weight is None or weight.dtype != ir.DataType.FLOAT or len(weight.shape) != 4:
        return None
    if attribute(conv, "group", 1) != 1 or attribute(conv, "dilations", (1, 1)) != (1, 1):
        return None
    if attribute(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    slices = [_phase(producer(value, "Slice")) for value in concat.inputs]
    first = slices[0]
    if first is None or any(s is None or (s.x, s.steps) != (first.x, first.steps) for s in slices):
        return None
    phases = tuple(s.phases[0] for s in slices if s is not None)
    fits = weight.shape[1] == len(phases) * (_channels(first.x) or 0)
    return _Focus(first.x, first.steps, phases) if fits and len(set(phases)) == len(phases) else None


def _phase(node: ir.Node | None) -> _Focus | None:
    """A Slice as case 1 has it."""
    if node is None or len(node.inputs) != 5 or node.inputs[0] is None:
        return None
    starts, ends, axes, steps = (ints_of(value) for value in node.inputs[1:])
    if starts is None or ends is None or axes is None or steps is None or len(starts) != 2:
        return None
    by_axis = {axis % 4: (start, end, step) for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)}
    if _channels(node.inputs[0]) is None or set(by_axis) != {2, 3}:
        return None
    shape = static_shape(node.inputs[0])
    for axis, (start, end, step) in by_axis.items():
        whole = end >= (shape[axis] if shape is not None else TO_THE_END)
        if not whole or step < 2 or not 0 <= start < step or step != steps[0]:
            return None
    return _Focus(node.inputs[0], steps[0], ((by_axis[2][0], by_axis[3][0]),))


def _channels(x: ir.Value) -> int | None:
    size = x.shape[1] if x.shape is not None and len(x.shape) == 4 else None
    return size if isinstance(size, int) else None


def _fold(conv: ir.Node, focus: _Focus, editor: Editor) -> None:
    weight, name = tensor_of(conv.inputs[1]), conv.inputs[1].name if conv.inputs[1] is not None else None
    assert weight is not None
    r = focus.steps
    editor.set_input(conv, 1, editor.constant(_enlarged(weight.numpy(), focus), f"{name}/enlarged"))
    editor.set_input(conv, 0, focus.x)
    editor.set_attribute(conv, "kernel_shape", tuple(r * int(size) for size in weight.shape[2:]))  # type: ignore[arg-type]
    editor.set_attribute(conv, "strides", tuple(r * s for s in attribute(conv, "strides", (1, 1))))
    editor.set_attribute(conv, "pads", tuple(r * p for p in attribute(conv, "pads", (0, 0, 0, 0))))
    editor.set_attribute(conv, "auto_pad", None)


def _enlarged(weight: Array, focus: _Focus) -> Array:
    """`[M, phases * C, kh, kw]` as `[M, C, r * kh, r * kw]`."""
    r, (outputs, inputs, rows, columns) = focus.steps, weight.shape
    channels = inputs // len(focus.phases)
    large = np.zeros((outputs, channels, r * rows, r * columns), weight.dtype)
    for i, (row, column) in enumerate(focus.phases):
        large[:, :, row::r, column::r] = weight[:, i * channels : (i + 1) * channels]
    return large
