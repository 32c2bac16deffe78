"""Attention masks: read as a tensor of kept keys where they are made of one, else as what is added to scores."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.core import FAR, Form
from onnxcompress.passes.lower.transformer.lowering import Result, support
from onnxcompress.passes.lower.transformer.moves import assignments, evaluate, leaves, trials
from onnxcompress.passes.simplify.editor import Editor, rank_of

Array = np.ndarray[Any, Any]

NOWHERE = -1e30
"""Added to a score, it leaves nothing of it."""

KEEP_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.BOOL)


class Mask(NamedTuple):
    """A mask of QAttention.

    Attributes:
        value: [B, S], nonzero where a key is attended to ("keys"); or, of rank at most 4, what is added to scores, or
            the condition that keeps or drops them.
        form: which of the four.
    """

    value: ir.Value
    form: Form | Literal["keys"]


def find_mask(value: ir.Value, form: Form, heads: int) -> Mask | str:
    """The mask that an addend of the scores is, or the condition that keeps or drops them.

    Cases:
      1. It is computed from one tensor [B, S] alone, and comes to 0 (keeps) for keys where that is 1, and to -1000 or
         less (drops) where it is 0, as tried for several of them. The tensor is taken to hold zeros and ones.
      2. A float32 addend, or a condition, of rank 1 to 4, as it is.
    """
    sources = leaves(value)
    of_keys = len(sources) == 1 and rank_of(sources[0]) == 2 and sources[0].dtype in KEEP_TYPES
    if of_keys and _keeps(value, sources[0], heads, form):
        return Mask(sources[0], "keys")
    wanted = ir.DataType.FLOAT if form == "added" else ir.DataType.BOOL
    if value.dtype != wanted or rank_of(value) not in (1, 2, 3, 4):
        return "its mask is not float32 of known rank"
    return Mask(value, form)


def _keeps(value: ir.Value, source: ir.Value, heads: int, form: Form) -> bool:
    assert source.dtype is not None
    random = np.random.default_rng(0)
    tried = False
    for sizes, names in trials(source):
        if len(names) == 1 and sizes[0] == sizes[1]:
            return False  # queries by keys
        mask = random.integers(0, 2, sizes)
        mask[0, 0], mask[-1, 0] = 0, 1  # no two samples alike
        given = {source: mask.astype(source.dtype.numpy())}
        results = (evaluate(value, given, guess) for guess in assignments([value], sizes, names))
        found = next((r for r in results if r is not None), None)
        if found is None or not _matches(found, mask != 0, heads, form):
            return False
        tried = True
    return tried


def _matches(found: Array, keep: Array, heads: int, form: Form) -> bool:
    batch, length = keep.shape
    if found.ndim == 3 and found.shape[0] == batch * heads:
        found = found.reshape(batch, heads, *found.shape[1:])
    try:
        wide = np.broadcast_to(found, (batch, heads, length, length))
    except ValueError:
        return False
    kept = np.broadcast_to(keep[:, None, None, :], wide.shape)
    if form != "added":
        return bool(np.array_equal(wide.astype(bool), kept if form == "kept" else ~kept))
    return bool(np.all(wide[kept] == 0) and np.all(wide[~kept] <= FAR))


def addend(editor: Editor, mask: Mask, *, before: ir.Node) -> ir.Value:
    """What is added to scores, of rank 4, for a mask that is not one of keys."""
    value = mask.value
    if mask.form != "added":
        numbers = (0.0, NOWHERE) if mask.form == "kept" else (NOWHERE, 0.0)
        choices = [editor.constant(np.array(number, np.float32), "score") for number in numbers]
        result = Result(ir.DataType.FLOAT, value.shape)
        value = support(editor, "Where", [value, *choices], {}, result, before=before)
    missing = 4 - (rank_of(value) or 4)
    if not missing:
        return value
    axes = editor.constant(np.arange(missing, dtype=np.int64), "leading_axes")
    result = Result(ir.DataType.FLOAT, ir.Shape([1] * missing + list(value.shape or [])))
    return support(editor, "Unsqueeze", [value, axes], {}, result, before=before)
