"""Nodes that do nothing: a table of rules."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    Array,
    Editor,
    array_of,
    attribute,
    ints_of,
    producer,
    rank_of,
    scalar_of,
    static_shape,
    tensor_of,
)
from onnxcompress.passes.simplify.rules import Rule, bypass

INT64_MAX = np.iinfo(np.int64).max


def same_shape(a: ir.Value | None, b: ir.Value | None) -> bool:
    """Whether two values have the same shape for certain; equal names of dimensions are equal dimensions."""
    if a is None or b is None or a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(same_dim(x, y) for x, y in zip(a.shape, b.shape, strict=True))


def same_dim(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int) and isinstance(b, int) and a == b
    return a.value is not None and a.value == b.value


def _identity(node: ir.Node) -> ir.Value | None:
    return node.inputs[0] if node.inputs else None


def _cast(node: ir.Node) -> ir.Value | None:
    data = node.inputs[0]
    if data is not None and data.dtype is not None and data.dtype == ir.DataType(attribute(node, "to", 0)):
        return data
    return None


def _dropout(node: ir.Node) -> ir.Value | None:
    """Inference: no training_mode input, or a constant false; the mask unused."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None and scalar_of(training) != 0:
        return None
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return None
    return node.inputs[0]


def _transpose(node: ir.Node) -> ir.Value | None:
    perm = attribute(node, "perm")
    if perm is None:
        return node.inputs[0] if rank_of(node.inputs[0]) in (0, 1) else None
    return node.inputs[0] if list(perm) == sorted(perm) else None


def _reshape(node: ir.Node) -> ir.Value | None:
    data = node.inputs[0]
    if same_shape(data, node.outputs[0]):
        return data
    target = ints_of(node.inputs[1])
    if target is None or data is None or data.shape is None or len(data.shape) != len(target):
        return None
    copied = sum(
        t == d or (t == 0 and not attribute(node, "allowzero", 0)) for t, d in zip(target, data.shape, strict=True)
    )
    unknown = sum(t == -1 for t in target)
    # One axis left to compute, all others as they were: it is as it was, too.
    return data if copied + unknown == len(target) and unknown <= 1 else None


def _same_shape_result(node: ir.Node) -> ir.Value | None:
    """Expand, Tile, Resize-like ops of one data input whose result has its shape."""
    return node.inputs[0] if same_shape(node.inputs[0], node.outputs[0]) else None


def _expand(node: ir.Node) -> ir.Value | None:
    if same_shape(node.inputs[0], node.outputs[0]):
        return node.inputs[0]
    target, rank = ints_of(node.inputs[1]), rank_of(node.inputs[0])
    if target is not None and rank is not None and len(target) <= rank and all(t == 1 for t in target):
        return node.inputs[0]
    return None


def _tile(node: ir.Node) -> ir.Value | None:
    repeats = ints_of(node.inputs[1])
    return node.inputs[0] if repeats is not None and all(r == 1 for r in repeats) else None


def _slice(node: ir.Node) -> ir.Value | None:
    if len(node.inputs) < 3:
        return None
    data = node.inputs[0]
    starts, ends = ints_of(node.inputs[1]), ints_of(node.inputs[2])
    axes = ints_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    steps = ints_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else (1,)
    if starts is None or steps is None or any(s != 0 for s in starts) or any(s != 1 for s in steps):
        return None
    if same_shape(data, node.outputs[0]):
        return data
    if ends is None or data is None:
        return None
    if all(e >= INT64_MAX // 2 or e == np.iinfo(np.int32).max for e in ends):
        return data
    if data.shape is None or (axes is None and len(node.inputs) > 3 and node.inputs[3] is not None):
        return None
    axes = axes if axes is not None else tuple(range(len(ends)))
    dims = [data.shape[a] for a in axes]
    return data if all(isinstance(d, int) and e >= d for d, e in zip(dims, ends, strict=True)) else None


def _pad(node: ir.Node) -> ir.Value | None:
    pads = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return node.inputs[0] if pads is not None and not any(pads) else None


def _single(node: ir.Node) -> ir.Value | None:
    """Concat, Sum, Max, Min, Mean of one input."""
    return node.inputs[0] if len(node.inputs) == 1 else None


def _resize(node: ir.Node) -> ir.Value | None:
    scales = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is None or scales.size == 0 or not (scales == 1).all():
        return None
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    return None if mode == "tf_crop_and_resize" else node.inputs[0]


def _pool(node: ir.Node) -> ir.Value | None:
    """A pool of one element with stride 1 and no pads."""
    kernel = attribute(node, "kernel_shape", ())
    strides, pads = attribute(node, "strides", (1,)), attribute(node, "pads", (0,))
    if any(k != 1 for k in kernel) or any(s != 1 for s in strides) or any(pads) or len(node.outputs) > 1:
        return None
    return node.inputs[0] if kernel else None


def _flatten(node: ir.Node) -> ir.Value | None:
    if rank_of(node.inputs[0]) != 2:
        return None
    return node.inputs[0] if attribute(node, "axis", 1) in (1, -1) else None


def _neutral(node: ir.Node) -> ir.Value | None:
    """x + 0, x - 0, x * 1, x / 1, x ** 1, where the constant does not broadcast x to another shape."""
    a, b = node.inputs
    neutral = 0.0 if node.op_type in ("Add", "Sub") else 1.0
    sides = [(a, b)] if node.op_type in ("Sub", "Div", "Pow") else [(a, b), (b, a)]
    for data, other in sides:
        tensor = tensor_of(other)
        if data is None or tensor is None or data.dtype != node.outputs[0].dtype or data.dtype is None:
            continue
        rank = rank_of(data)
        narrow = tensor.size == 1 and (len(tensor.shape) == 0 or (rank is not None and rank >= len(tensor.shape)))
        if not narrow and not same_shape(data, node.outputs[0]):
            continue
        array = array_of(other, limit=1 << 16)
        if array is not None and array.size and (array == neutral).all():
            return data
    return None


def _double(node: ir.Node) -> ir.Value | None:
    """A node whose input the same kind of node made: idempotent ops."""
    before = producer(node.inputs[0], node.op_type)
    return before.outputs[0] if before is not None else None


def _reduce_one(node: ir.Node) -> ir.Value | None:
    """A reduction over axes of one element that keeps them: sums, means and extrema of one element."""
    data = node.inputs[0]
    if attribute(node, "keepdims", 1) and reduced_axes(node) is not None:
        return data
    return None


def reduced_axes(node: ir.Node) -> tuple[int, ...] | None:
    """The axes of a reduction when all of them have one element."""
    data = node.inputs[0]
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    if data is None or data.shape is None or not axes:
        return None
    return tuple(axes) if all(data.shape[a] == 1 for a in axes) else None


def _times_zero(node: ir.Node) -> Array | None:
    """Integers times a constant zero, of known shape (floats may be infinite or not a number)."""
    shape, dtype = static_shape(node.outputs[0]), node.outputs[0].dtype
    if shape is None or dtype is None or not dtype.is_integer() or np.prod(shape, dtype=np.int64) > 256:
        return None
    if any(array is not None and array.size and not array.any() for array in map(array_of, node.inputs)):
        return np.zeros(shape, dtype.numpy())
    return None


def _put_constant(node: ir.Node, array: Array, editor: Editor) -> bool:
    return editor.put_constant(node.outputs[0], array)


def _not_condition(node: ir.Node) -> ir.Value | None:
    before = producer(node.inputs[0], "Not")
    return before.inputs[0] if before is not None else None


def _swap_branches(node: ir.Node, condition: ir.Value, editor: Editor) -> bool:
    branches = [node.attributes.get("then_branch"), node.attributes.get("else_branch")]
    if any(b is None or b.is_ref() for b in branches):
        return False
    graphs = [b.as_graph() for b in branches if b is not None]
    node.attributes["then_branch"] = ir.AttrGraph("then_branch", graphs[1])
    node.attributes["else_branch"] = ir.AttrGraph("else_branch", graphs[0])
    editor.set_input(node, 0, condition)
    return True


def _where(node: ir.Node) -> ir.Value | None:
    condition = array_of(node.inputs[0], limit=1 << 16)
    if condition is None or not condition.size:
        return None
    chosen = node.inputs[1] if condition.all() else node.inputs[2] if not condition.any() else None
    return chosen if chosen is not None and same_shape(chosen, node.outputs[0]) else None


def _cast_like(node: ir.Node) -> ir.DataType | None:
    target = node.inputs[1]
    return None if target is None else target.dtype


def _name_type(node: ir.Node, dtype: ir.DataType, editor: Editor) -> bool:
    cast = editor.insert("Cast", [node.inputs[0]], {"to": int(dtype)}, before=node, like=node.outputs[0])
    return editor.replace(node.outputs[0], cast.outputs[0])


NO_OPS = (
    Rule("identity", ("Identity",), _identity, bypass),
    Rule("cast to its own type", ("Cast",), _cast, bypass),
    Rule("cast to a known type", ("CastLike",), _cast_like, _name_type),
    Rule("dropout", ("Dropout",), _dropout, bypass),
    Rule("transpose to the same order", ("Transpose",), _transpose, bypass),
    Rule("reshape to the same shape", ("Reshape", "Squeeze", "Unsqueeze"),
         lambda n: _reshape(n) if n.op_type == "Reshape" else _same_shape_result(n), bypass),
    Rule("expand to the same shape", ("Expand",), _expand, bypass),
    Rule("tile once", ("Tile",), _tile, bypass),
    Rule("slice of all", ("Slice",), _slice, bypass),
    Rule("pad by nothing", ("Pad",), _pad, bypass),
    Rule("one operand", ("Concat", "Sum", "Max", "Min", "Mean"), _single, bypass),
    Rule("resize by one", ("Resize",), _resize, bypass),
    Rule("pool of one element", ("MaxPool", "AveragePool"), _pool, bypass),
    Rule("flatten of a matrix", ("Flatten",), _flatten, bypass),
    Rule("neutral operand", ("Add", "Sub", "Mul", "Div", "Pow"), _neutral, bypass),
    Rule("done twice", ("Relu", "Abs", "Ceil", "Floor", "Round", "Sign"), _double, bypass),
    Rule("reduction of one element", ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"),
         _reduce_one, bypass),
    Rule("integers times zero", ("Mul",), _times_zero, _put_constant),
    Rule("If of Not", ("If",), _not_condition, _swap_branches),
    Rule("constant condition", ("Where",), _where, bypass),
)  # fmt: skip
