"""How operators that keep channels apart couple axes: elementwise ones, norms, pools, reductions, resizing."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, factor, freeze, root, unify
from onnxcompress.passes.prune.channels.fixes import Count, Entry, Target
from onnxcompress.passes.prune.channels.trace import POSITIONS, Axes, Trace, broadcast, title, whole
from onnxcompress.passes.simplify.editor import array_of, attribute, ints_of

PER_CHANNEL_GROUP_NORM = 21
"""From this opset on GroupNormalization has a scale and a bias for each channel; before, for each group."""


def unary(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Every output has the axes of the first input; others (bounds, ratios, exponents) are scalars."""
    axes = trace.axes(node, 0)
    return None if axes is None else [axes for _ in node.outputs]


def elementwise(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """All inputs broadcast to each other."""
    operands = [trace.axes(node, i) for i in range(len(node.inputs))]
    known = [axes for axes in operands if axes is not None]
    return [broadcast(trace, known, node.outputs[0], node)] if len(known) == len(operands) else None


def along_axis(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Softmax and the like: positions along the axis depend on each other, all others do not."""
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    before_13 = trace.opset < 13 and node.op_type in ("Softmax", "LogSoftmax", "Hardmax")
    axis = int(attribute(node, "axis", 1 if before_13 else -1))
    if node.op_type == "CumSum":
        found = ints_of(node.inputs[1])
        if found is None:
            return None
        axis = found[0]
    taken = axes[axis:] if before_13 else [axes[axis]]
    whole([taken], f"{title(node)} runs over it")
    return [axes]


def batch_norm(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """x [N, C, ...]; scale, bias, mean and variance [C]. Not in training mode."""
    axes = trace.axes(node, 0)
    if axes is None or len(axes) < 2 or len(node.outputs) > 1 or attribute(node, "training_mode", 0):
        return None
    return [axes] if all(trace.couple(node, i, [axes[1]]) for i in range(1, 5)) else None


def instance_norm(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """x [N, C, ...]; scale and bias [C]; statistics over the places of each channel."""
    axes = trace.axes(node, 0)
    if axes is None or len(axes) < 3:
        return None
    whole([axes[2:]], POSITIONS)
    return [axes] if all(trace.couple(node, i, [axes[1]]) for i in (1, 2)) else None


def group_norm(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """x [N, C, ...]: C is groups x channels, and the channels of a group share statistics: whole groups only."""
    axes = trace.axes(node, 0)
    groups = int(attribute(node, "num_groups", 0))
    parts = factor(axes[1], groups) if axes is not None and len(axes) > 2 and groups else None
    if axes is None or parts is None:
        return None
    freeze(parts[1], f"{title(node)} takes its statistics over it")
    whole([axes[2:]], POSITIONS)
    trace.shape_fixes[node] = Count("num_groups", parts[0])
    dim = axes[1] if trace.opset >= PER_CHANNEL_GROUP_NORM else parts[0]
    return [axes] if all(trace.couple(node, i, [dim]) for i in (1, 2)) else None


def layer_norm(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Statistics over the axes from `axis` on; scale and bias have those axes."""
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    axis = int(attribute(node, "axis", -1)) % len(axes)
    if not trace.widths:
        whole([axes[axis:]], f"{title(node)} takes its statistics over it")
    for index in (1, 2):
        for dim, target in zip(reversed(trace.axes(node, index) or []), reversed(axes), strict=False):
            if root(dim).size != 1:
                unify(dim, target)
    reduced = [*axes[:axis], *(Dim(1) for _ in axes[axis:])]
    return [axes, *(reduced for _ in node.outputs[1:])]


def normalized_channels(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """LRN: each channel is divided by what its neighbours hold."""
    axes = trace.axes(node, 0)
    if axes is None or len(axes) < 2:
        return None
    freeze(axes[1], f"{title(node)} takes its statistics over it")
    return [axes]


def pool(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """x [N, C, ...] to [N, C, ...]; MaxPool's indices number channels too, so nothing may read them."""
    axes = trace.axes(node, 0)
    if axes is None or len(axes) < 3 or len(node.outputs) > 1:
        return None
    whole([axes[2:]], POSITIONS)
    globally = node.op_type.startswith("Global")
    return [[*axes[:2], *(Dim(1) if globally else trace.own_axis(node.outputs[0], i) for i in range(2, len(axes)))]]


def reduction(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Reduce*, ArgMax, ArgMin: the reduced axes stay whole, for what they give would change."""
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    if node.op_type in ("ArgMax", "ArgMin"):
        over: tuple[int, ...] | None = (int(attribute(node, "axis", 0)),)
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        over = ints_of(node.inputs[1])
        if over is None:
            return None
    else:
        over = attribute(node, "axes")
    if not over:
        over = () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(len(axes)))
    taken = {axis % len(axes) for axis in over}
    whole([[axes[axis] for axis in taken]], f"{title(node)} reduces it")
    if attribute(node, "keepdims", 1):
        return [[Dim(1) if i in taken else dim for i, dim in enumerate(axes)]]
    return [[dim for i, dim in enumerate(axes) if i not in taken]]


def resize(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Axes with scale 1, or whose size is asked for as it is, pass; the others are places."""
    axes = trace.axes(node, 0)
    stretched = attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    cropped = attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if axes is None or cropped or not stretched:
        return None
    order = [int(a) % len(axes) for a in attribute(node, "axes", tuple(range(len(axes))))]
    sizes = trace.vector(node.inputs[3]) if len(node.inputs) > 3 else None
    scales = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    result = list(axes)
    for place, axis in enumerate(order):
        if not _is_kept(axes[axis], place, sizes, None if scales is None else scales.reshape(-1).tolist()):
            freeze(axes[axis], POSITIONS)
            result[axis] = trace.own_axis(node.outputs[0], axis)
    if sizes is not None and len(sizes) == len(order):
        trace.shape_fixes[node] = Target(3, sizes, [result[a] for a in order], [axes[a] for a in order], None)
    return [result]


def _is_kept(dim: Dim, place: int, sizes: list[Entry] | None, scales: list[float] | None) -> bool:
    if sizes is not None and place < len(sizes):
        entry = sizes[place]
        if isinstance(entry, Dim):
            return root(entry) is root(dim)
        return entry is not None and entry == root(dim).size
    return scales is not None and place < len(scales) and math.isclose(scales[place], 1.0, rel_tol=0, abs_tol=0)
