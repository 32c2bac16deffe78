"""Shapes that are computed when the model runs, followed number by number, and the operators that obey them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, factors, freeze, product, root, unify
from onnxcompress.passes.prune.channels.fixes import Entry, Target
from onnxcompress.passes.prune.channels.trace import Axes, Trace, title, whole
from onnxcompress.passes.simplify.editor import attribute, ints_of


def shape(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Shape: its result is a vector of numbers; `sizes` follows them."""
    return [trace.own(node.outputs[0])]


def sizes(trace: Trace, node: ir.Node) -> list[Entry] | None:
    """Of Shape: the axes whose sizes it gives."""
    axes = trace.axes(node, 0)
    if axes is None:
        return None
    start, end = int(attribute(node, "start", 0)), int(attribute(node, "end", len(axes)))
    return list(axes[start:end])


def same(trace: Trace, node: ir.Node) -> list[Entry] | None:
    """Of Cast, Identity, Squeeze, Unsqueeze, Reshape of a vector."""
    rank = trace.rank(node.outputs[0])
    return trace.vector(node.inputs[0]) if rank is None or rank <= 1 else None


def picked(trace: Trace, node: ir.Node) -> list[Entry] | None:
    """Of Gather of a vector by constant numbers."""
    entries, places = trace.vector(node.inputs[0]), ints_of(node.inputs[1])
    if entries is None or places is None or any(not -len(entries) <= i < len(entries) for i in places):
        return None
    return [entries[i] for i in places]


def cut_out(trace: Trace, node: ir.Node) -> list[Entry] | None:
    """Of Slice of a vector with constant bounds."""
    entries = trace.vector(node.inputs[0])
    bounds = [ints_of(value) for value in node.inputs[1:3]]
    step = ints_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else (1,)
    if entries is None or step is None or any(bound is None or len(bound) != 1 for bound in bounds):
        return None
    (start,), (end,) = (bound or (0,) for bound in bounds)
    return entries[start : end : step[0]]


def joined(trace: Trace, node: ir.Node) -> list[Entry] | None:
    """Of Concat of vectors; one that is not followed but has a known length gives unknown numbers."""
    result: list[Entry] = []
    followed = False
    for value in node.inputs:
        entries = trace.vector(value)
        if entries is None:
            axes = None if value is None else trace.axes_of(value)
            length = root(axes[0]).size if axes is not None and len(axes) == 1 else None
            if length is None:
                return None
            entries = [None] * length
        else:
            followed = True
        result.extend(entries)
    return result if followed else None


def reshape(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Reshape: runs of axes that are regrouped are one product taken apart in two ways.

    1. Numbers of the target: 0 and the size of an axis are that axis; -1 is what is left.
    2. Matched from the left and from the right: an axis that is in both; runs of known sizes with equal products.
    3. What is left must be one axis on one side: it is the product of the other side's.
    4. Else what is left keeps its positions; so does everything where the target is not known.
    """
    data = trace.axes(node, 0)
    entries = trace.vector(node.inputs[1])
    output = node.outputs[0]
    if data is None:
        return None
    if entries is None:
        whole([data], f"{title(node)} has a target that is not followed")
        return [trace.own(output)]
    own = trace.own(output)
    result: Axes = []
    for j, entry in enumerate(entries):
        if entry == 0 and not attribute(node, "allowzero", 0):
            result.append(data[j] if j < len(data) else Dim())
        elif isinstance(entry, Dim):
            # Of known size: matched by its size, for equal shapes are computed once for what is not coupled.
            result.append(entry if root(entry).size is None else Dim(root(entry).size))
        elif entry is not None and entry >= 0:
            result.append(Dim(entry))
        else:
            known = own[j] if own is not None and len(own) == len(entries) else Dim()
            result.append(known if root(known).size is None or entry == -1 else Dim(None))
    left_in, left_out = _matched(data, result)
    if len(left_in) == 1 or len(left_out) == 1:
        unify(product(left_in), product(left_out))
    else:
        whole([left_in, left_out], f"{title(node)} regroups it in a way that is not followed")
    computed = [dim for dim, entry in zip(result, entries, strict=True) if entry is None]
    whole([computed], f"{title(node)} has a target that is not followed")
    sources = [data[j] if j < len(data) else None for j in range(len(entries))]
    trace.shape_fixes[node] = Target(1, entries, result, sources, 0)
    return [result]


def expand(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """Expand: the result has the axes of the data, and those of the target where the data's are 1."""
    data, entries = trace.axes(node, 0), trace.vector(node.inputs[1])
    if data is None:
        return None
    if entries is None:
        whole([data], f"{title(node)} has a target that is not followed")
        return [trace.own(node.outputs[0])]
    rank = max(len(data), len(entries))
    sources: list[Dim | None] = [None] * (rank - len(data)) + list(data)
    asked: list[Entry] = [*(1 for _ in range(rank - len(entries))), *entries]
    result = [_expanded(trace, node, *pair, i - rank) for i, pair in enumerate(zip(sources, asked, strict=True))]
    offset = rank - len(entries)
    trace.shape_fixes[node] = Target(1, entries, result[offset:], sources[offset:], 1)
    return [result]


def _expanded(trace: Trace, node: ir.Node, source: Dim | None, asked: Entry, axis: int) -> Dim:
    size = 1 if source is None else root(source).size
    if asked == 1 and source is not None:
        return source
    if size == 1:
        if isinstance(asked, Dim):
            return asked
        return Dim(asked) if asked is not None else trace.own_axis(node.outputs[0], axis, "it is computed")
    assert source is not None
    if isinstance(asked, Dim) and (root(asked) is root(source) or (size is not None and root(asked).size == size)):
        unify(source, asked)
        return source
    if isinstance(asked, int) and asked == size:
        return source
    freeze(source, f"{title(node)} expands it to a size that is not known")
    if isinstance(asked, Dim):
        freeze(asked, f"{title(node)} expands to its size")
    return source if size is not None else trace.own_axis(node.outputs[0], axis, "it is computed")


def _matched(data: Sequence[Dim], result: Sequence[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Unify what two lists of axes with the same elements begin and end with; gives what is left in the middle."""
    left = [part for dim in data for part in factors(dim)]
    right = [part for dim in result for part in factors(dim)]
    for step in (1, -1):  # from the left, then from the right on lists that are turned round
        while left and right:
            runs = _equal_runs(left, right)
            if runs is None:
                break
            unify(product(left[: runs[0]][::step]), product(right[: runs[1]][::step]))
            del left[: runs[0]], right[: runs[1]]
        left.reverse()
        right.reverse()
    return left, right


def _equal_runs(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[int, int] | None:
    """How many axes at the head of each list hold the same number of elements; None: that is not known."""
    if root(left[0]) is root(right[0]):
        return 1, 1
    i = j = 0
    a, b = root(left[0]).size, root(right[0]).size
    while a is not None and b is not None and a != b:
        if a < b:
            i += 1
            a = None if i == len(left) else _times(a, root(left[i]).size)
        else:
            j += 1
            b = None if j == len(right) else _times(b, root(right[j]).size)
    return None if a is None or b is None else (i + 1, j + 1)


def _times(a: int, b: int | None) -> int | None:
    return None if b is None else a * b
