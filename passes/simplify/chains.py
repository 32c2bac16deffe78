"""Neighbours that are one node: tables of rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    Array,
    Editor,
    array_of,
    attribute,
    ints_of,
    is_op,
    producer,
    rank_of,
    scalar_of,
)
from onnxcompress.passes.simplify.noops import reduced_axes, same_dim, same_shape
from onnxcompress.passes.simplify.rules import Rule


class Chain(NamedTuple):
    """Two nodes that become one: its op, its data, the constants and attributes it takes."""

    op_type: str
    data: ir.Value
    constants: tuple[Array | ir.Value | None, ...]
    attributes: Mapping[str, object]


def _emit(node: ir.Node, chain: Chain, editor: Editor) -> bool:
    inputs: list[ir.Value | None] = [chain.data]
    for item in chain.constants:
        if isinstance(item, np.ndarray):
            item = editor.constant(item, f"{node.outputs[0].name}_c")
        inputs.append(item)
    new = editor.insert(chain.op_type, inputs, dict(chain.attributes), before=node, like=node.outputs[0])
    return editor.replace(node.outputs[0], new.outputs[0])


def _transposes(node: ir.Node) -> Chain | None:
    before = producer(node.inputs[0], "Transpose")
    if before is None:
        return None
    first, second = attribute(before, "perm"), attribute(node, "perm")
    if first is None or second is None or before.inputs[0] is None:
        return None
    return Chain("Transpose", before.inputs[0], (), {"perm": [first[i] for i in second]})


def _reshapes(node: ir.Node) -> Chain | None:
    """Only the last shape counts, unless it copies dimensions (0) from the reshape before."""
    before = producer(node.inputs[0], "Reshape", "Flatten", "Squeeze", "Unsqueeze")
    if before is None or before.inputs[0] is None:
        return None
    allowzero = attribute(node, "allowzero", 0)
    target = ints_of(node.inputs[1])
    if target is not None and (0 not in target or allowzero):
        attributes = {"allowzero": 1} if allowzero and 0 in target else {}
        return Chain("Reshape", before.inputs[0], (node.inputs[1],), attributes)
    return None


def _flat_to_reshape(node: ir.Node) -> Chain | None:
    """Squeeze, Unsqueeze or Flatten after one of their kind: one Reshape, where at most one dimension is unknown
    or the unknown ones stay where they are."""
    before = producer(node.inputs[0], "Reshape", "Flatten", "Squeeze", "Unsqueeze")
    if before is None or before.inputs[0] is None:
        return None
    target = reshape_target(before.inputs[0], node.outputs[0])
    return None if target is None else Chain("Reshape", before.inputs[0], (np.array(target, np.int64),), {})


def reshape_target(data: ir.Value, result: ir.Value) -> list[int] | None:
    """A constant shape that reshapes `data` to `result`'s shape: 0 where a dimension stays, -1 once."""
    if data.shape is None or result.shape is None:
        return None
    target: list[int] = []
    for i, dim in enumerate(result.shape):
        if isinstance(dim, int):
            if dim == 0:
                return None
            target.append(dim)
        elif i < len(data.shape) and same_dim(dim, data.shape[i]):
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    return ints_of(node.inputs[1]) if len(node.inputs) > 1 else None


def _unsqueezes(node: ir.Node) -> Chain | None:
    before = producer(node.inputs[0], "Unsqueeze")
    if before is None or before.inputs[0] is None:
        return None
    first, second = _axes(before), _axes(node)
    rank = rank_of(before.inputs[0])
    if first is None or second is None:
        return None
    if any(a < 0 for a in (*first, *second)):
        if rank is None:
            return None
        first = tuple(a % (rank + len(first)) for a in first)
        second = tuple(a % (rank + len(first) + len(second)) for a in second)
    axes, taken = list(second), set(second)
    free = iter(i for i in range(len(first) + len(second) + max((*first, *second)) + 1) if i not in taken)
    positions = {}
    for k, i in enumerate(free):
        positions[k] = i
        if k >= max(first):
            break
    axes += [positions[a] for a in first]
    return Chain("Unsqueeze", before.inputs[0], (np.array(sorted(axes), np.int64),), {})


def _casts(node: ir.Node) -> Chain | None:
    """Cast after a cast that loses nothing: one cast."""
    before = producer(node.inputs[0], "Cast")
    if before is None or before.inputs[0] is None or before.inputs[0].dtype is None:
        return None
    source, middle = before.inputs[0].dtype, ir.DataType(attribute(before, "to", 0))
    if (source, middle) not in LOSSLESS_CASTS:
        return None
    return Chain("Cast", before.inputs[0], (), {"to": attribute(node, "to")})


D = ir.DataType
LOSSLESS_CASTS = {
    *((D.BOOL, t) for t in (D.UINT8, D.INT8, D.INT32, D.INT64, D.FLOAT, D.FLOAT16, D.DOUBLE)),
    *((D.INT32, t) for t in (D.INT64, D.DOUBLE)),
    *((D.UINT8, t) for t in (D.INT16, D.INT32, D.INT64, D.FLOAT, D.DOUBLE)),
    *((D.INT8, t) for t in (D.INT16, D.INT32, D.INT64, D.FLOAT, D.DOUBLE)),
    *((D.FLOAT16, t) for t in (D.FLOAT, D.DOUBLE)),
    *((D.BFLOAT16, t) for t in (D.FLOAT, D.DOUBLE)),
    (D.FLOAT, D.DOUBLE),
}


class Bounds(NamedTuple):
    data: ir.Value
    low: float | None
    high: float | None


def _bounds(node: ir.Node) -> Bounds | None:
    """What Clip and Relu do, when their limits are constant."""
    data = node.inputs[0]
    if data is None or data.dtype is None or not data.dtype.is_floating_point():
        return None
    if node.op_type == "Relu":
        return Bounds(data, 0.0, None)
    limits: list[float | None] = [None, None]
    for i, value in enumerate(node.inputs[1:3]):
        if value is not None:
            limits[i] = scalar_of(value)
            if limits[i] is None:
                return None
    return Bounds(data, limits[0], limits[1])


def _clips(node: ir.Node) -> Chain | None:
    """Relu and Clip in a row: the tighter of the limits. ONNX: Clip is min(max(x, low), high)."""
    before = producer(node.inputs[0], "Clip", "Relu")
    if before is None:
        return None
    first, second = _bounds(before), _bounds(node)
    if first is None or second is None:
        return None
    # Where the second's range misses the first's, or a range is empty, the order of the two decides: no merge.
    low = max((v for v in (first.low, second.low) if v is not None), default=None)
    high = min((v for v in (first.high, second.high) if v is not None), default=None)
    if low is not None and high is not None and low > high:
        return None
    assert first.data.dtype is not None
    dtype = first.data.dtype.numpy()
    if low == 0 and high is None:
        return Chain("Relu", first.data, (), {})
    limits = tuple(None if v is None else np.array(v, dtype) for v in (low, high))
    return Chain("Clip", first.data, limits, {})


def _slices(node: ir.Node) -> Chain | None:
    """Slices of different axes, each read once: one Slice."""
    before = producer(node.inputs[0], "Slice")
    if before is None or before.inputs[0] is None or len(before.outputs[0].uses()) != 1:
        return None
    if before.outputs[0].is_graph_output():
        return None
    first, second = _slice_arguments(before), _slice_arguments(node)
    if first is None or second is None or set(first[2]) & set(second[2]):
        return None
    merged = [np.array([*a, *b], np.int64) for a, b in zip(first, second, strict=True)]
    if all(s == 1 for s in merged[3]):
        merged.pop()
    return Chain("Slice", before.inputs[0], tuple(merged), {})


def _slice_arguments(node: ir.Node) -> tuple[tuple[int, ...], ...] | None:
    if len(node.inputs) < 4:
        return None
    starts, ends, axes = (ints_of(v) for v in node.inputs[1:4])
    rank = rank_of(node.inputs[0])
    if starts is None or ends is None or axes is None:
        return None
    has_steps = len(node.inputs) > 4 and node.inputs[4] is not None
    steps = ints_of(node.inputs[4]) if has_steps else tuple(1 for _ in starts)
    if steps is None or (rank is None and any(a < 0 for a in axes)):
        return None
    return starts, ends, tuple(a % rank if rank else a for a in axes), steps


def _concats(node: ir.Node) -> list[ir.Value] | None:
    """Concat of Concats along one axis, where they are read by it alone."""
    axis, merged, found = attribute(node, "axis"), [], False
    for value in node.inputs:
        inner = producer(value, "Concat")
        if value is None:
            return None
        if (
            inner is not None
            and attribute(inner, "axis") == axis
            and len(value.uses()) == 1
            and not value.is_graph_output()
            and inner.graph is node.graph
        ):
            merged += [v for v in inner.inputs if v is not None]
            found = True
        else:
            merged.append(value)
    return merged if found else None


def _merge_concats(node: ir.Node, values: list[ir.Value], editor: Editor) -> bool:
    new = editor.insert("Concat", values, {"axis": attribute(node, "axis")}, before=node, like=node.outputs[0])
    return editor.replace(node.outputs[0], new.outputs[0])


def _zero_state(node: ir.Node) -> list[int] | None:
    """Initial states of a recurrent op that are zero: the default."""
    indices = [i for i in (5, 6) if len(node.inputs) > i and node.inputs[i] is not None and _is_zero(node.inputs[i])]
    return indices or None


def _is_zero(value: ir.Value | None) -> bool:
    tensor = array_of(value)
    if tensor is not None:
        return bool((tensor == 0).all())
    node = producer(value, "ConstantOfShape", "Expand", "Reshape", "Transpose", "Slice", "Unsqueeze", "Squeeze")
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        filler = node.attributes.get("value")
        return filler is None or not filler.as_tensor().numpy().any()
    return _is_zero(node.inputs[0])


def _drop_states(node: ir.Node, indices: list[int], editor: Editor) -> None:
    for i in indices:
        editor.set_input(node, i, None)
    count = len(node.inputs)
    while count and node.inputs[count - 1] is None:
        count -= 1
    node.resize_inputs(count)


def _transpose_of_ones(node: ir.Node) -> Chain | None:
    """Transpose that moves only axes of length one, after or before a reshape: a Reshape that can merge."""
    data, perm = node.inputs[0], attribute(node, "perm")
    if data is None or data.shape is None or perm is None:
        return None
    moved = [a for a in perm if data.shape[a] != 1]
    if moved != sorted(moved) or not _reshape_neighbour(node):
        return None
    target = reshape_target(data, node.outputs[0])
    return None if target is None else Chain("Reshape", data, (np.array(target, np.int64),), {})


def _reshape_neighbour(node: ir.Node) -> bool:
    kinds = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
    if producer(node.inputs[0], *kinds) is not None and len(node.inputs[0].uses()) == 1:  # type: ignore[union-attr]
        return True
    uses = node.outputs[0].uses()
    return bool(uses) and all(is_op(use.node, *kinds) for use in uses)


def _reduce_to_squeeze(node: ir.Node) -> Chain | None:
    axes, data = reduced_axes(node), node.inputs[0]
    if axes is None or data is None or attribute(node, "keepdims", 1):
        return None
    return Chain("Squeeze", data, (np.array(axes, np.int64),), {})


def _flattened_softmax(node: ir.Node) -> Chain | None:
    """Flattened, normalized along the last axis and given its shape back, as opsets below 13 are converted where the
    rank is not known yet: the last axis of the tensor as it is, if flattening leaves that axis alone."""
    inner = producer(node.inputs[0], "Softmax", "LogSoftmax", "Hardmax")
    flat = producer(inner.inputs[0], "Flatten", "Reshape") if inner is not None else None
    if inner is None or flat is None or any(len(n.outputs[0].uses()) != 1 for n in (inner, flat)):
        return None
    data, rows = flat.inputs[0], flat.outputs[0]
    rank = rank_of(rows)
    if data is None or rank is None or attribute(inner, "axis", -1) not in (-1, rank - 1):
        return None
    dims = producer(node.inputs[1], "Shape")
    is_back = dims is not None and dims.inputs[0] is data and not {"start", "end"} & set(dims.attributes)
    if not is_back and not same_shape(node.outputs[0], data):
        return None
    if not _keeps_last(flat, data) and not _same_last(data, rows):
        return None
    return Chain(inner.op_type, data, (), {"axis": -1})


def _keeps_last(flat: ir.Node, data: ir.Value) -> bool:
    rank = rank_of(data)
    return flat.op_type == "Flatten" and rank is not None and attribute(flat, "axis", 1) in (rank - 1, -1)


def _same_last(a: ir.Value, b: ir.Value) -> bool:
    return bool(a.shape and b.shape) and same_dim(a.shape[-1], b.shape[-1])  # type: ignore[index]


CHAINS = (
    Rule("softmax of a flattened tensor", ("Reshape",), _flattened_softmax, _emit, since=13),
    Rule(
        "reduction of one element",
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"),
        _reduce_to_squeeze,
        _emit,
        since=13,
    ),
    Rule("transposes in a row", ("Transpose",), _transposes, _emit),
    Rule("reshapes in a row", ("Reshape",), _reshapes, _emit),
    Rule(
        "squeezes and reshapes in a row",
        ("Squeeze", "Unsqueeze", "Flatten", "Reshape"),
        _flat_to_reshape,
        _emit,
    ),
    Rule("unsqueezes in a row", ("Unsqueeze",), _unsqueezes, _emit, since=13),
    Rule("transpose of length-one axes", ("Transpose",), _transpose_of_ones, _emit),
    Rule("casts in a row", ("Cast",), _casts, _emit),
    Rule("clips in a row", ("Clip", "Relu"), _clips, _emit, since=11),
    Rule("slices in a row", ("Slice",), _slices, _emit, since=10),
    Rule("concats in a row", ("Concat",), _concats, _merge_concats),
    Rule("zero initial state", ("LSTM", "GRU", "RNN"), _zero_state, _drop_states),
)
"""Each replaces a node by one that reads what its predecessor read; the predecessor goes if nothing else needs it."""
