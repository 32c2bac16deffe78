"""Cutting units out of a model: smaller weights, the same wiring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.prune.channels.compensation import fold_means
from onnxcompress.passes.prune.channels.dims import Dim, mask
from onnxcompress.passes.prune.channels.groups import Traced, trace_groups
from onnxcompress.passes.prune.channels.trace import Use
from onnxcompress.passes.simplify.editor import Editor, dims_of, tensor_of
from onnxcompress.passes.simplify.inference import DropShapes, InferShapes, recorded_shapes

Array = np.ndarray[Any, Any]


class PruneChannels(ir.passes.InPlacePass):
    """Cut channels, neurons and heads out of a model.

    The result computes what the model computes when the constants of the units that go are 0: what a unit gives to
    any layer that reads it is gone, and nothing else changes.

    Cases:
      1. Weights, biases, norms, slopes and other constants along a cut axis lose the positions of the units. A
         vector that several nodes read is split where they are cut differently.
      2. Targets of Reshape and Expand, sizes of Resize and Split, bounds of Slice, groups of Conv and
         GroupNormalization are written anew; numbers that are computed when the model runs come right by themselves.
      3. Recorded shapes are inferred again.
      4. With `means`, what a cut unit gave its readers on average goes into their biases.

    Args:
        keep: group name (`find_groups`) -> the units that stay, at least one. Groups that are not named stay whole.
        means: value name -> mean of each channel, over samples and places, of what Conv (axis 1), MatMul and Gemm
            (last axis) read. Readers of other values are not compensated. Exact for units that are constant, except
            where a convolution pads.
        widths: as it was for `find_groups`.

    Raises:
        ValueError: no such group; units out of range or none; a mean that has not one finite number per channel.
    """

    def __init__(
        self,
        keep: Mapping[str, Sequence[int]],
        *,
        means: Mapping[str, Array] | None = None,
        widths: bool = False,
    ) -> None:
        super().__init__()
        self.keep = keep
        self.means = means or {}
        self.widths = widths

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        traced = trace_groups(model, widths=self.widths)
        kept = self._kept(traced)
        if not kept:
            return ir.passes.PassResult(model, False)
        recorded = recorded_shapes(model)
        if self.means and fold_means(model, traced.trace, kept, self.means):
            traced = trace_groups(model, widths=self.widths)  # readers have biases now that they had not
            kept = self._kept(traced)
        editor = Editor(model)
        for node, fix in traced.trace.shape_fixes.items():
            fix.apply(editor, node, kept)
        done: set[ir.Value] = set()
        for use in list(traced.trace.uses()):
            if use.value not in done:
                _cut(editor, use, [mask(dim, kept) for dim in use.axes], done)
        InferShapes()(model)
        DropShapes(recorded)(model)
        return ir.passes.PassResult(model, True)

    def _kept(self, traced: Traced) -> dict[Dim, Array]:
        kept: dict[Dim, Array] = {}
        for name, units in self.keep.items():
            leaf = traced.leaf_of(name)
            size = leaf.size or 0
            if not units or not all(0 <= unit < size for unit in units):
                raise ValueError(f"group {name!r} must keep at least one of its units, 0 to {size - 1}")
            stays = np.zeros(size, bool)
            stays[list(units)] = True
            if not stays.all():
                kept[leaf] = stays
        return kept


def _cut(editor: Editor, use: Use, masks: Sequence[Array], done: set[ir.Value]) -> None:
    """Take the positions that stay out of a constant: for all its readers, or of a vector for this one alone."""
    value, tensor = use.value, tensor_of(use.value)
    assert tensor is not None
    if all(stays.all() for stays in masks):
        return
    array = tensor.numpy()
    for axis, stays in enumerate(masks):
        if not stays.all():
            array = np.compress(stays, array, axis=axis)
    new = ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=value.name)
    shared = len(value.uses()) > 1 and sum(size > 1 for size in dims_of(tensor)) <= 1
    if shared:
        editor.set_input(use.node, use.index, editor.constant(new, value.name or "constant"))
    else:
        value.const_value = new
        value.shape = ir.Shape(array.shape)
        done.add(value)
        editor.changes += 1
