"""Heads: which columns of a linear layer's result are which channels of which head."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.moves import Path, assignments, evaluate, trials
from onnxcompress.passes.simplify.editor import rank_of

Array = np.ndarray[Any, Any]


class Heads(NamedTuple):
    """How a factor of attention comes from the result of a linear layer.

    Attributes:
        columns: int64 [H, d], the column of each channel of each head.
        batch_first: the result is [B, S, N]; else [S, B, N].
    """

    columns: Array
    batch_first: bool


class Joined(NamedTuple):
    """How the heads' results are put together: [B, S, C] or [S, B, C], in three dimensions or the first two as one."""

    batch_first: bool
    rank: int


def find_heads(path: Path, factor: ir.Value, *, keys: bool) -> Heads | str:
    """The heads of a factor of a product, [B, H, S, d] or [B * H, S, d]; `keys`: the last two dimensions swapped.

    1. The source is [B, S, N] or [S, B, N] with known N.
    2. factor[b, h, s, i] is source[b, s, columns[h, i]] (or with b and s swapped), as tried for several B and S.
    """
    source = path.source
    if rank_of(source) != 3 or source.shape is None or not isinstance(source.shape[2], int):
        return f"{source.name} is not known to be [batch, sequence, channels]"
    width, found = source.shape[2], None
    for sizes, names in trials(source):
        numbers = np.arange(sizes[0] * sizes[1] * width).reshape(*sizes, width)
        here = None
        for guess in assignments([factor], sizes, names):
            moved = evaluate(factor, {source: numbers}, guess, path.nodes)
            here = None if moved is None else _columns(moved.swapaxes(-1, -2) if keys else moved, numbers)
            if here is not None:
                break
        if here is None or (found is not None and not _equal(here, found)):
            return f"{source.name} is not split into heads"
        found = here
    return found if found is not None else f"{source.name} is not split into heads"


def _columns(moved: Array, numbers: Array) -> Heads | None:
    for batch_first in (True, False):
        rows = numbers if batch_first else numbers.swapaxes(0, 1)
        batch, length, _ = rows.shape
        if moved.ndim not in (3, 4) or moved.shape[-2] != length or moved.size % (batch * length * moved.shape[-1]):
            continue
        heads = moved.reshape(batch, -1, length, moved.shape[-1])
        columns = heads[0, :, 0, :]
        if columns.max() < numbers.shape[2] and np.array_equal(rows[:, :, columns].transpose(0, 2, 1, 3), heads):
            return Heads(columns, batch_first)
    return None


def _equal(a: Heads, b: Heads) -> bool:
    return a.batch_first == b.batch_first and np.array_equal(a.columns, b.columns)


def find_joined(path: Path, target: ir.Value, source: ir.Value, split: Heads) -> Joined | None:
    """How the second product, `path.source`, lies in `target`; None: the heads are not side by side there.

    Args:
        source: the result of a linear layer that heads were split from, which tells the names of dimensions.
        split: how they were.
    """
    found = None
    heads, size = split.columns.shape
    for sizes, names in trials(source):
        batch, length = sizes if split.batch_first else sizes[::-1]
        numbers = np.arange(batch * length * heads * size).reshape(batch, heads, length, size)
        given = numbers if rank_of(path.source) == 4 else numbers.reshape(batch * heads, length, size)
        here = None
        for guess in assignments([target], sizes, names):
            moved = evaluate(target, {path.source: given}, guess, path.nodes)
            here = None if moved is None else _joined(moved, numbers)
            if here is not None:
                break
        if here is None or found not in (None, here):
            return None
        found = here
    return found


def _joined(moved: Array, numbers: Array) -> Joined | None:
    batch, heads, length, size = numbers.shape
    rows: Array = numbers.transpose(0, 2, 1, 3).reshape(batch, length, heads * size)
    for batch_first in (True, False):
        wanted: Array = rows if batch_first else rows.swapaxes(0, 1)
        if moved.ndim == 2:
            wanted = wanted.reshape(-1, heads * size)
        if np.array_equal(moved, wanted):
            return Joined(batch_first, moved.ndim)
    return None
