"""Adding a constant before linear nodes: into their biases, for what they make of it is a constant too."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.fuse.affine import Before, before_linear, input_vector
from onnxcompress.passes.fuse.weights import bias_of, input_sums, set_bias, weight_of
from onnxcompress.passes.simplify.editor import Array, Editor, attribute
from onnxcompress.passes.simplify.rules import Rule


def takes_shift(reader: ir.Node) -> bool:
    """Has a node of `linear_readers` a bias that can take what it makes of a constant input?

    1. Conv, or Gemm without transA.
    2. The bias is absent or constant.
    """
    if reader.op_type == "Gemm" and attribute(reader, "transA", 0):
        return False
    weight = weight_of(reader)
    return reader.op_type in ("Conv", "Gemm") and weight is not None and bias_of(reader, weight).known


def add_shift(reader: ir.Node, shift: Array, editor: Editor) -> None:
    """Add to the bias what the node makes of a shift: float64, one number or one an input channel."""
    weight = weight_of(reader)
    assert weight is not None
    bias = bias_of(reader, weight).array
    added = input_sums(reader, weight, np.broadcast_to(shift, (weight.inputs,)))
    set_bias(reader, added if bias is None else bias + added, weight, editor)
    editor.touch(reader)


def _shift_before_linear(node: ir.Node) -> Before | None:
    """Add or Sub of one number, or one a channel, that only linear nodes with a bias read.

    1. The readers are as for a factor, and `takes_shift`.
    2. A Conv does not pad: with zeros for the shifted input, its border sees less of the shift.
    """
    found = before_linear(node, "shift")
    if found is None or not all(takes_shift(reader) and not _pads(reader) for reader in found.readers):
        return None
    return found if all(_vector(reader, found.constant) is not None for reader in found.readers) else None


def _pads(reader: ir.Node) -> bool:
    automatic = attribute(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return automatic or any(attribute(reader, "pads", ()))


def _vector(reader: ir.Node, shift: Array) -> Array | None:
    if shift.size == 1:
        return shift.reshape(1)
    weight = weight_of(reader)
    assert weight is not None
    return input_vector(reader, shift, weight.inputs)


def _into_biases(node: ir.Node, found: Before, editor: Editor) -> bool:
    for reader in found.readers:
        vector = _vector(reader, found.constant)
        assert vector is not None
        add_shift(reader, vector, editor)
    return editor.replace(node.outputs[0], found.data)


SHIFT = (Rule("shift into the bias after it", ("Add", "Sub"), _shift_before_linear, _into_biases),)
