"""Reading and rewriting the constants of a node, for the passes that move scales and offsets between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import Editor

Array = np.ndarray[Any, Any]


def float_constant(value: ir.Value | None) -> Array | None:
    """The float32 array of an initializer that no graph input overrides and no graph output shows, or None."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.is_graph_output():
        return None
    tensor = value.const_value
    return tensor.numpy() if tensor is not None and tensor.dtype == ir.DataType.FLOAT else None


def replace_constant(editor: Editor, node: ir.Node, index: int, array: Array) -> None:
    """Give a node another constant; an initializer that only it reads keeps its name, a shared one is split."""
    value = node.inputs[index]
    stem = f"{node.name or node.outputs[0].name}/{index}" if value is None else value.name or ""
    if value is None or not value.is_initializer() or len(value.uses()) > 1:
        editor.set_input(node, index, editor.constant(array, stem))
        return
    value.const_value = ir.tensor(array, name=value.name)
    value.shape = ir.Shape(array.shape)
    editor.touch(node)
    editor.changes += 1
