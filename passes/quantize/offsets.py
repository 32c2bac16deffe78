"""Offsets behind activations, in whole steps: for the function bodies of native operators.

y = activation(x) + offset is rounded to bytes. Where offset / scale is whole, these are the activation's own bytes with
another zero point, for which ONNX Runtime has integer kernels; for any other table it has none that is fast (see
`onnxcompress.ops.lookup`). The native kernels do not care.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.fuse.affine import linear_readers
from onnxcompress.passes.fuse.shift import add_shift, takes_shift
from onnxcompress.passes.quantize import roles
from onnxcompress.passes.quantize.affine import affine_parameters
from onnxcompress.passes.quantize.arithmetic import Parameters, parameters
from onnxcompress.passes.quantize.constants import replace_constant
from onnxcompress.passes.quantize.plan import Plan
from onnxcompress.passes.simplify.editor import Editor

LARGEST_WIDENING = 1.2
"""Of a scale, for the offset's sake: more costs more accuracy than a fast function body is worth."""

LEAST_REST = 0.02
"""In steps: what is left of an offset below it changes hardly any byte."""


def whole_offsets(model: ir.Model, plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Parameters]:
    """Parameters (uint8) of the tensors in `plan.offsets`, whose offsets are made whole where that is cheap.

    1. Only Convs and Gemms with constant weights and biases read the tensor: the offset is rounded to whole steps and
       the biases take the rest. Where a Conv pads with zeros, its border sees up to half a step too much or too little.
    2. Elsewhere the scale is widened, by `LARGEST_WIDENING` at most.
    """
    editor = Editor(model)
    found = {}
    for name, affine in plan.offsets.items():
        value, (low, high) = plan.tensors[name], ranges[name]
        plain = parameters(low, high, ir.DataType.UINT8)
        rest = affine.offset - round(affine.offset / plain.scale) * plain.scale
        if abs(rest) <= LEAST_REST * plain.scale or _hand_on(value, rest, editor):
            found[name] = plain
            continue
        whole = affine_parameters(low, high, affine, ir.DataType.UINT8)
        found[name] = whole if whole is not None and whole.scale <= LARGEST_WIDENING * plain.scale else plain
    return found


def _hand_on(value: ir.Value, rest: float, editor: Editor) -> bool:
    """Take `rest` out of the constant that is added last and into the readers' biases; False: it can not be."""
    node = value.producer()
    readers = linear_readers(value)
    if node is None or node.op_type not in ("Add", "Sub") or readers is None:
        return False
    index = next((i for i, operand in enumerate(node.inputs) if roles.constant_scalar(operand) is not None), None)
    if index is None or not all(map(takes_shift, readers)):
        return False
    constant = node.inputs[index]
    assert constant is not None and constant.const_value is not None
    array = constant.const_value.numpy()
    taken = -rest if node.op_type == "Sub" and index == 1 else rest
    replace_constant(editor, node, index, (array - taken).astype(array.dtype))
    for reader in readers:
        add_shift(reader, np.array([rest]), editor)
    return True
