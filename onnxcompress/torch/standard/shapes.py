"""Shapes: reading them, changing them, cutting and joining."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import torch

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, number, numbers, plain


def shape(call: Call) -> Function:
    first, last = call.get("start", 0), call.get("end")
    return lambda x: torch.tensor(x.shape[first:last], dtype=torch.int64)


def reshape(call: Call) -> Function:
    keep_zeros = bool(call.get("allowzero", 0))
    fixed = call.get("shape") if call.version < 5 else None

    def apply(x: torch.Tensor, shape: torch.Tensor | None = None) -> torch.Tensor:
        target: Any = fixed if shape is None else numbers(shape)
        if 0 in target and not keep_zeros:
            target = [x.shape[i] if d == 0 else d for i, d in enumerate(target)]
        return x.reshape(target)

    return apply


def flatten(call: Call) -> Function:
    axis = call.get("axis", 1)

    def apply(x: torch.Tensor) -> torch.Tensor:
        cut = axis if axis >= 0 else axis + x.dim()
        return x.reshape(math.prod(x.shape[:cut]), math.prod(x.shape[cut:]))

    return apply


def transpose(call: Call) -> Function:
    order = call.get("perm")
    return lambda x: x.permute(order if order is not None else tuple(reversed(range(x.dim()))))


def concat(call: Call) -> Function:
    axis = call.get("axis", 1)
    return lambda *inputs: torch.cat(inputs, axis)


def squeeze(call: Call) -> Function:
    fixed = call.get("axes") if call.version < 13 else None

    def apply(x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        chosen = fixed if axes is None else numbers(axes)
        return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))

    return apply


def unsqueeze(call: Call) -> Function:
    fixed = call.get("axes") if call.version < 13 else None

    def apply(x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        chosen: Any = fixed if axes is None else numbers(axes)
        rank = x.dim() + len(chosen)
        for axis in sorted(a % rank for a in chosen):
            x = x.unsqueeze(axis)
        return x

    return apply


def expand(x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(numbers(shape))))


def split(call: Call) -> Function:
    axis, parts = call.get("axis", 0), call.get("num_outputs") or call.outputs
    fixed = call.get("split") if call.version < 13 else None

    def apply(x: torch.Tensor, sizes: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        lengths = fixed if sizes is None else numbers(sizes)
        if lengths is None:
            each, total = -(-x.shape[axis] // parts), x.shape[axis]
            lengths = [min(each, total - i * each) for i in range(parts)]
        result: tuple[torch.Tensor, ...] = torch.split(x, list(lengths), axis)
        return result

    return apply


def slices(call: Call) -> Function:
    if call.version < 10:
        starts, ends, axes = call.attributes["starts"], call.attributes["ends"], call.get("axes")
        return lambda x: _sliced(x, starts, ends, axes, None)

    def apply(x: torch.Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> torch.Tensor:
        return _sliced(
            x, numbers(starts), numbers(ends), None if axes is None else numbers(axes),
            None if steps is None else numbers(steps),
        )  # fmt: skip

    return apply


def _sliced(x: torch.Tensor, starts: Any, ends: Any, axes: Any, steps: Any) -> torch.Tensor:
    """Bounds as numpy clamps them; torch has no negative steps."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        first, last, _ = slice(start, end, step).indices(x.shape[axis])
        if step == 1:
            x = x.narrow(axis, first, max(last - first, 0))
        else:
            places = torch.tensor(range(first, last, step), dtype=torch.int64, device=x.device)
            x = x.index_select(axis, places)
    return x


def constant_of_shape(call: Call) -> Function:
    value = call.get("value")
    fill = torch.zeros(1) if value is None else value.reshape(-1)[:1]
    return lambda shape: fill.expand(math.prod(numbers(shape))).clone().reshape(numbers(shape))


def value_range(start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    first, last, step = number(start), number(limit), number(delta)
    count = max(math.ceil((last - first) / step), 0)
    return first + step * torch.arange(count, dtype=start.dtype)


def eye_like(call: Call) -> Function:
    kind, k = call.get("dtype"), call.get("k", 0)

    def apply(x: torch.Tensor) -> torch.Tensor:
        rows, columns = x.shape
        dtype = x.dtype if kind is None else call.types.of(ir.DataType(kind))
        ones = torch.ones(rows, columns, dtype=torch.bool, device=x.device)
        return (torch.tril(ones, k) & torch.triu(ones, k)).to(dtype)

    return apply


def triangle(call: Call) -> Function:
    cut = torch.triu if call.get("upper", 1) else torch.tril
    return lambda x, k=None: cut(x, int(number(k, 0)))


def depth_to_space(call: Call) -> Function:
    block, columns_first = call.attributes["blocksize"], call.get("mode", "DCR") == "DCR"

    def apply(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        inner = c // block**2
        if columns_first:
            y = x.reshape(n, block, block, inner, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(n, inner, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        return y.reshape(n, inner, h * block, w * block)

    return apply


def space_to_depth(call: Call) -> Function:
    block = call.attributes["blocksize"]

    def apply(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * block**2, h // block, w // block)

    return apply


SHAPES: Table = {
    "Shape": Operator(shape, shapes=True),
    "Size": plain(lambda x: torch.tensor(x.numel()), shapes=True),
    "Reshape": Operator(reshape, numbers=(1,)),
    "Flatten": Operator(flatten),
    "Transpose": Operator(transpose),
    "Concat": Operator(concat),
    "Squeeze": Operator(squeeze, numbers=(1,)),
    "Unsqueeze": Operator(unsqueeze, numbers=(1,)),
    "Expand": plain(expand, numbers=(1,)),
    "Tile": plain(lambda x, repeats: x.repeat(numbers(repeats)), numbers=(1,)),
    "Split": Operator(split, numbers=(1,)),
    "Slice": Operator(slices, numbers=(1, 2, 3, 4)),
    "ConstantOfShape": Operator(constant_of_shape, numbers=(0,)),
    "Range": plain(value_range, numbers=(0, 1, 2)),
    "EyeLike": Operator(eye_like),
    "Trilu": Operator(triangle, numbers=(1,)),
    "DepthToSpace": Operator(depth_to_space),
    "SpaceToDepth": Operator(space_to_depth),
}
