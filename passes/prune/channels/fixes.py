"""Numbers in a graph that speak of an axis: what a cut must write anew besides weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, Kept, kept_size, root
from onnxcompress.passes.simplify.editor import Editor, ints_of

Array = np.ndarray[Any, Any]
Entry = int | Dim | None
"""One number of a tensor that holds a shape: known, the size of an axis, or unknown."""

SPLIT_INPUT = 13
"""From this opset on the sizes of Split are an input; before, an attribute."""


class Fix(Protocol):
    """Knows which axes a node's numbers speak of; `apply` writes the numbers as they are after a cut."""

    def apply(self, editor: Editor, node: ir.Node, kept: Kept) -> None: ...


@dataclass(frozen=True)
class Count:
    """An attribute that says how many groups an axis has: `group` of Conv, `num_groups` of GroupNormalization."""

    attribute: str
    groups: Dim

    def apply(self, editor: Editor, node: ir.Node, kept: Kept) -> None:
        count = kept_size(self.groups, kept)
        if count != node.attributes.get_int(self.attribute, 1):
            editor.set_attribute(node, self.attribute, count)


@dataclass(frozen=True)
class Target:
    """The shape that a node gives its result: second input of Reshape and Expand, fourth of Resize.

    Attributes:
        index: of the input.
        entries: its numbers. One that is the size of an axis is right by itself when that axis is cut like the
            one that it is for.
        outputs: the axis that each number is for.
        inputs: of Reshape and Expand the data's axes, aligned with `outputs`; None where there is none.
        neutral: what stands for an input's axis as it is: 0 for Reshape, 1 for Expand; None: nothing does.
    """

    index: int
    entries: Sequence[Entry]
    outputs: Sequence[Dim]
    inputs: Sequence[Dim | None]
    neutral: int | None

    def apply(self, editor: Editor, node: ir.Node, kept: Kept) -> None:
        changed = [_is_wrong(entry, dim, kept) for entry, dim in zip(self.entries, self.outputs, strict=True)]
        if not any(changed):
            return
        sizes: list[int | None] = []
        for entry, dim, source, change in zip(self.entries, self.outputs, self.inputs, changed, strict=True):
            if change:
                sizes.append(kept_size(dim, kept))
            elif isinstance(entry, int):
                sizes.append(entry)
            else:
                same = self.neutral is not None and source is not None and root(source) is root(dim)
                sizes.append(self.neutral if same else None)
        if self.neutral == 0 and sizes.count(None) == 1 and -1 not in sizes:
            sizes[sizes.index(None)] = -1
        if self.neutral == 0:
            editor.set_attribute(node, "allowzero", None)
        editor.set_input(node, self.index, _vector(editor, node, self.index, sizes))


@dataclass(frozen=True)
class Parts:
    """The sizes of the parts that a Split gives."""

    outputs: Sequence[Dim]

    def apply(self, editor: Editor, node: ir.Node, kept: Kept) -> None:
        sizes = [kept_size(dim, kept) for dim in self.outputs]
        if sizes == [root(dim).size for dim in self.outputs]:
            return
        if editor.opset < SPLIT_INPUT:
            editor.set_attribute(node, "split", sizes)
            return
        editor.set_attribute(node, "num_outputs", None)
        editor.set_input(node, 1, editor.constant(np.array(sizes, np.int64), f"{node.name}/sizes"))


@dataclass(frozen=True)
class Windows:
    """Where a Slice begins and ends: for each of its axes what lies before the window and in it, or None."""

    windows: Sequence[tuple[Dim, Dim] | None]

    def apply(self, editor: Editor, node: ir.Node, kept: Kept) -> None:
        found = ints_of(node.inputs[1]), ints_of(node.inputs[2])
        assert found[0] is not None and found[1] is not None
        starts, ends = list(found[0]), list(found[1])
        changed = False
        for i, window in enumerate(self.windows):
            if window is None:
                continue
            before, inside = window
            start, count = kept_size(before, kept), kept_size(inside, kept)
            if (start, count) != (root(before).size, root(inside).size):
                starts[i], ends[i] = start, start + count
                changed = True
        if changed:
            # All bounds of a Slice have one integer type.
            present = node.inputs[1]
            dtype = np.int32 if present is not None and present.dtype == ir.DataType.INT32 else np.int64
            editor.set_input(node, 1, editor.constant(np.array(starts, dtype), f"{node.name}/starts"))
            editor.set_input(node, 2, editor.constant(np.array(ends, dtype), f"{node.name}/ends"))


def _is_wrong(entry: Entry, dim: Dim, kept: Kept) -> bool:
    """Whether a number of a target, or what it will be when the model runs, is not the size of its axis."""
    known = root(entry).size if isinstance(entry, Dim) else entry
    if known is None or known <= 0 or root(dim).size != known:
        return False
    return kept_size(dim, kept) != (kept_size(entry, kept) if isinstance(entry, Dim) else entry)


def _vector(editor: Editor, node: ir.Node, index: int, sizes: Sequence[int | None]) -> ir.Value:
    """A shape of known numbers; those that are None are taken from the node's present one when the model runs."""
    stem = f"{node.name}/shape"
    if None not in sizes:
        return editor.constant(np.array(sizes, np.int64), stem)
    present = node.inputs[index]
    parts: list[ir.Value] = []
    for i, size in enumerate(sizes):
        if size is not None:
            parts.append(editor.constant(np.array([size], np.int64), stem))
        else:
            place = editor.constant(np.array([i], np.int64), f"{stem}_index")
            parts.append(editor.insert("Gather", [present, place], {"axis": 0}, before=node, stem=stem).outputs[0])
    return editor.insert("Concat", parts, {"axis": 0}, before=node, stem=stem).outputs[0]
