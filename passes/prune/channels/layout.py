"""How operators that move, part and join channels couple axes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, factor, freeze, product, root, split, total, unify
from onnxcompress.passes.prune.channels.fixes import Parts, Windows
from onnxcompress.passes.prune.channels.trace import POSITIONS, Axes, Trace, title, whole
from onnxcompress.passes.simplify.editor import attribute, ints_of, tensor_of


def transpose(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    order = attribute(node, "perm") or tuple(reversed(range(len(axes))))
    return [[axes[i] for i in order]]


def flatten(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """The axes before `axis` become one, and those from it on."""
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    axis = int(attribute(node, "axis", 1))
    axis += len(axes) if axis < 0 else 0
    return [[product(axes[:axis]), product(axes[axis:])]]


def squeeze(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    over = _axes_argument(node)
    if over is None:
        if any(root(dim).size is None for dim in axes):
            return None
        over = tuple(i for i, dim in enumerate(axes) if root(dim).size == 1)
    gone = {axis % len(axes) for axis in over}
    return [[dim for i, dim in enumerate(axes) if i not in gone]]


def unsqueeze(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    axes, over = trace.axes(node, 0), _axes_argument(node)
    if axes is None or over is None:
        return None
    rank = len(axes) + len(over)
    new = {axis % rank for axis in over}
    remaining = iter(axes)
    return [[Dim(1) if i in new else next(remaining) for i in range(rank)]]


def concat(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """One after the other along an axis; equal along all others."""
    operands = [trace.axes(node, i) for i in range(len(node.inputs))]
    known = [axes for axes in operands if axes is not None]
    if len(known) != len(operands) or len({len(axes) for axes in known}) != 1:
        return None
    axis = int(attribute(node, "axis", 0)) % len(known[0])
    result = list(known[0])
    for axes in known[1:]:
        for i, dim in enumerate(axes):
            if i != axis:
                unify(result[i], dim)
    joined = [axes[axis] for axes in known]
    if any(root(dim).size is None for dim in joined):
        whole([joined], f"{title(node)} joins it with an axis of unknown size")
        result[axis] = trace.own_axis(node.outputs[0], axis)
    else:
        result[axis] = total(joined)
    return [result]


def split_parts(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """An axis in parts: of constant sizes, or as equal as they can be."""
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    axis = int(attribute(node, "axis", 0)) % len(axes)
    dim = axes[axis]
    sizes = _split_sizes(node, root(dim).size)
    parts: list[Dim] | None = None
    if sizes is not None:
        parts = _cut_up(dim, sizes)
    if parts is None:
        freeze(dim, f"{title(node)} parts it where it cannot be parted")
        parts = [trace.own_axis(output, axis) for output in node.outputs]
    else:
        trace.shape_fixes[node] = Parts(tuple(parts))
    return [[*axes[:axis], part, *axes[axis + 1 :]] for part in parts]


def window(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Slice: along each of its axes everything, a constant window of step 1, or what is not followed."""
    axes = trace.axes(node, 0)
    if axes is None or len(node.inputs) < 3:  # before opset 10 its bounds are attributes
        return None
    starts, ends = ints_of(node.inputs[1]), ints_of(node.inputs[2])
    over = _given(node, 3, tuple(range(len(starts or ()))))
    steps = _given(node, 4, (1,) * len(over or ()))
    if over is None:
        return None
    result = list(axes)
    windows: list[tuple[Dim, Dim] | None] = []
    for i, axis in enumerate(over):
        dim, size = axes[axis], root(axes[axis]).size
        parts: list[Dim] | None = None
        if starts is not None and ends is not None and steps is not None and steps[i] == 1:
            if size is None and starts[i] == 0 and ends[i] >= np.iinfo(np.int32).max:
                windows.append(None)
                continue
            if size is not None:
                start, stop = (min(max(v + size if v < 0 else v, 0), size) for v in (starts[i], ends[i]))
                parts = _cut_up(dim, [start, max(stop - start, 0), size - max(stop, start)])
        if parts is None:
            freeze(dim, f"{title(node)} parts it where it cannot be parted")
            result[axis] = trace.own_axis(node.outputs[0], axis)
            windows.append(None)
        else:
            result[axis] = parts[1]
            windows.append((parts[0], parts[1]))
    if any(windows):
        trace.shape_fixes[node] = Windows(windows)
    return [result]


def gather(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Positions along an axis are picked by number: they stay. The rows of a table are a width."""
    axes, indices = trace.axes(node, 0), trace.axes(node, 1)
    if axes is None or indices is None:
        return None
    axis = int(attribute(node, "axis", 0)) % len(axes)
    freeze(axes[axis], f"{title(node)} picks its positions by number")
    if tensor_of(node.inputs[0]) is not None and len(axes) > 1:
        if not trace.widths:
            whole([axes], f"a width that is looked up in a table by {title(node)}")
        trace.set_role(node, 0, len(axes) - 1, "makes")
    return [[*axes[:axis], *indices, *axes[axis + 1 :]]]


def pad(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Axes that are not padded pass; constant channels around others are a part that stays."""
    axes = trace.axes(node, 0)
    pads = ints_of(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "pads")
    over = _given(node, 3, tuple(range(len(axes or ()))))
    if axes is None or pads is None or over is None or len(pads) != 2 * len(over):
        return None
    result = list(axes)
    for i, axis in enumerate(over):
        before, after = pads[i], pads[i + len(over)]
        if before == after == 0:
            continue
        size = root(axes[axis]).size
        if size is None or min(before, after) < 0 or attribute(node, "mode", "constant") != "constant":
            freeze(axes[axis], f"{title(node)} pads it")
            result[axis] = trace.own_axis(node.outputs[0], axis)
        else:
            reason = f"{title(node)} pads with it"
            result[axis] = total([Dim(before, reason), axes[axis], Dim(after, reason)])
    return [result]


def tile(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Axes that are repeated once pass."""
    axes, repeats = trace.axes(node, 0), ints_of(node.inputs[1])
    if axes is None or repeats is None or len(repeats) != len(axes):
        return None
    result = list(axes)
    for axis, times in enumerate(repeats):
        if times != 1:
            freeze(axes[axis], f"{title(node)} repeats it")
            result[axis] = trace.own_axis(node.outputs[0], axis)
    return [result]


def depth_to_space(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """[N, C, H, W] to [N, C / b^2, H b, W b]; the b x b places of a channel stay (mode DCR: outermost in C)."""
    axes = trace.axes(node, 0)
    if axes is None or len(axes) != 4 or root(axes[1]).size is None:
        return None
    places = int(attribute(node, "blocksize", 1)) ** 2
    inner_first = attribute(node, "mode", "DCR") == "DCR"
    count = (root(axes[1]).size or 0) // places
    parts = factor(axes[1], places if inner_first else count)
    if parts is None:
        return None
    block, channels = parts if inner_first else (parts[1], parts[0])
    whole([[block, *axes[2:]]], POSITIONS)
    return [[axes[0], channels, *(trace.own_axis(node.outputs[0], i) for i in (2, 3))]]


def space_to_depth(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """[N, C, H, W] to [N, b^2 C, H / b, W / b], places outermost."""
    axes = trace.axes(node, 0)
    if axes is None or len(axes) != 4:
        return None
    whole([axes[2:]], POSITIONS)
    places = Dim(int(attribute(node, "blocksize", 1)) ** 2, POSITIONS)
    result = product([places, axes[1]])
    return [[axes[0], result, *(trace.own_axis(node.outputs[0], i) for i in (2, 3))]]


def _axes_argument(node: ir.Node) -> tuple[int, ...] | None:
    """Axes as an input (opset 13 on) or an attribute; None: neither, or not constant."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return ints_of(node.inputs[1])
    found: tuple[int, ...] | None = attribute(node, "axes")
    return found


def _given(node: ir.Node, index: int, default: tuple[int, ...]) -> tuple[int, ...] | None:
    """A constant optional input, or its default; None: it is not constant."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return default
    return ints_of(node.inputs[index])


def _split_sizes(node: ir.Node, size: int | None) -> list[int] | None:
    if size is None:
        return None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = ints_of(node.inputs[1])
        return None if given is None or sum(given) != size else list(given)
    listed = attribute(node, "split")
    if listed is not None:
        return [int(part) for part in listed]
    # As the specification has it: equal parts, the last one smaller.
    count = len(node.outputs)
    each = -(-size // count)
    return [max(min(each, size - i * each), 0) for i in range(count)]


def _cut_up(dim: Dim, sizes: list[int]) -> list[Dim] | None:
    """The parts of a Dim of these sizes, which add up to its own; None where it cannot be parted there."""
    bounds = np.cumsum([0, *sizes]).tolist()
    parts: list[Dim] = []
    rest = dim
    for start, stop in pairwise(bounds):
        halves = split(rest, stop - start)
        if halves is None:
            return None
        parts.append(halves[0])
        rest = halves[1]
    return parts
