"""What cut units gave on average, added to the biases of the layers that read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Kept, leaves, mask
from onnxcompress.passes.prune.channels.trace import Reader, Trace
from onnxcompress.passes.quantize.constants import float_constant, replace_constant
from onnxcompress.passes.simplify.editor import Editor, attribute, is_op, only_reader

Array = np.ndarray[Any, Any]


def fold_means(model: ir.Model, trace: Trace, kept: Kept, means: Mapping[str, Array]) -> bool:
    """Add mean activation times weight of every cut channel to its readers' biases; before anything is cut.

    1. Conv: the weight summed over its window, which is exact away from padding.
    2. Gemm without transA, MatMul with a constant matrix on the right.
    3. A bias that is missing is added (of a MatMul in the Add that follows, or in a new one); one that is not
       constant float32: the reader is left as it is.

    Returns:
        Whether any bias changed.

    Raises:
        ValueError: a mean has not one finite number per channel.
    """
    editor = Editor(model)
    for reader in list(trace.readers):
        value = reader.node.inputs[reader.data]
        if value is None or value.name is None or value.name not in means:
            continue
        axes = trace.axes(reader.node, reader.data)
        assert axes is not None
        dim = axes[1 if reader.node.op_type == "Conv" else -1]
        if not any(leaf in kept for leaf in leaves(dim)):
            continue
        gone = ~mask(dim, kept)
        mean = np.asarray(means[value.name], np.float64)
        if mean.shape != gone.shape or not np.isfinite(mean).all():
            raise ValueError(f"the mean of {value.name!r} must be {gone.size} finite numbers, one per channel")
        weight = float_constant(reader.node.inputs[reader.weight])
        if weight is None:
            continue
        shift = _given(reader.node, weight, np.where(gone, mean, 0.0))
        if shift[mask(reader.output, kept)].any():
            _add(editor, reader, shift)
    return editor.changes > 0


def _given(node: ir.Node, weight: Array, mean: Array) -> Array:
    """What channels of these means give to each output channel: float64 [M]."""
    matrix = weight.astype(np.float64)
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        rows = matrix.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).sum(axis=-1)
        return np.asarray(np.einsum("gmc,gc->gm", rows, mean.reshape(groups, -1))).reshape(-1)
    if node.op_type == "Gemm":
        product = (matrix if attribute(node, "transB", 0) else matrix.T) @ mean
        return np.asarray(product * attribute(node, "alpha", 1.0))
    return np.asarray(mean @ matrix)


def _add(editor: Editor, reader: Reader, shift: Array) -> None:
    node, index = reader.node, 2
    if node.op_type == "MatMul":
        follower = only_reader(node.outputs[0])
        constants = (
            [] if follower is None else [i for i, v in enumerate(follower.inputs) if float_constant(v) is not None]
        )
        if follower is None or not is_op(follower, "Add") or not constants or not _is_row(follower, constants[0]):
            _append_add(editor, node, shift)
            return
        node, index = follower, constants[0]
    present = node.inputs[index] if index < len(node.inputs) else None
    bias = float_constant(present)
    if present is not None and bias is None:
        return
    if node.op_type == "Gemm":
        beta = attribute(node, "beta", 1.0) if bias is not None else 1.0
        if beta == 0:
            return
        editor.set_attribute(node, "beta", beta)
        shift = shift / beta
    total = (shift if bias is None else bias + shift).astype(np.float32)
    if present is None:
        editor.set_input(node, index, editor.constant(total, f"{node.name}/bias"))
    else:
        replace_constant(editor, node, index, total)


def _is_row(node: ir.Node, index: int) -> bool:
    """Whether an Add's constant is the same for all rows, so that it still is when a row is added to it."""
    array = float_constant(node.inputs[index])
    return array is not None and array.size == (array.shape[-1] if array.ndim else 1)


def _append_add(editor: Editor, node: ir.Node, shift: Array) -> None:
    """MatMul, then an Add of its own."""
    value = node.outputs[0]
    matmul = editor.insert("MatMul", list(node.inputs), before=node, like=value)
    constant = editor.constant(shift.astype(np.float32), f"{node.name}/bias")
    add = editor.insert("Add", [matmul.outputs[0], constant], before=node, like=value)
    name = node.name
    editor.replace(value, add.outputs[0])
    matmul.name = name
