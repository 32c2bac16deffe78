"""Scalar affine maps that cost nothing: y = factor * x + offset read off by another scale and zero point.

When y is to be quantized, x is instead, and its DequantizeLinear bears y's scale and zero point:
y = scale * (q - zero_point) with q = x / (scale / factor) + zero_point + offset / scale. It is exact when
offset / scale is a whole number, so the scale is widened until it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxcompress.passes.quantize import roles
from onnxcompress.passes.quantize.arithmetic import Parameters, parameters
from onnxcompress.passes.quantize.scheme import type_limits

LARGEST_ROUNDING = 0.25
"""In steps: an offset smaller than a step may be dropped when it is below this."""


@dataclass(frozen=True)
class Affine:
    """value = factor * root + offset, with factor > 0."""

    root: ir.Value
    factor: float
    offset: float


def find_affine(value: ir.Value) -> Affine | None:
    """Follow the Mul, Div, Add and Sub by scalar constants that make `value` back to their root.

    1. Every step has one constant operand of one element, and rank 0 or 1 (it must not add a dimension).
    2. Every value on the way is read by the next step only.
    3. The product of the factors is positive.
    """
    factor, offset = 1.0, 0.0
    root = value
    while (node := root.producer()) is not None and (step := _step(node)) is not None:
        source, scale, shift = step
        if roles.only_consumer(source) is not node:
            break
        offset += factor * shift
        factor *= scale
        root = source
    return Affine(root, factor, offset) if root is not value and factor > 0 else None


def _step(node: ir.Node) -> tuple[ir.Value, float, float] | None:
    """A node as (its variable input, factor, offset)."""
    if node.domain not in roles.STANDARD or node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    first, second = node.inputs
    for source, other, swapped in ((first, second, False), (second, first, True)):
        number = roles.constant_scalar(other)
        if number is None or source is None or roles.is_constant(source) or not roles.is_float(source):
            continue
        assert other is not None and other.const_value is not None
        if len(other.const_value.shape) > 1 or source.producer() is None:
            return None
        match node.op_type:
            case "Mul":
                return source, number, 0.0
            case "Add":
                return source, 1.0, number
            case "Sub":
                return (source, -1.0, number) if swapped else (source, 1.0, -number)
            case _:
                return None if swapped or number == 0 else (source, 1.0 / number, 0.0)
    return None


def affine_parameters(low: float, high: float, affine: Affine, dtype: ir.DataType) -> Parameters | None:
    """Parameters of an asymmetric type that hold [low, high], 0 and the offset, with offset / scale whole.

    Returns None when no such scale is fine enough: the offset lies below one step and is not negligible.
    """
    least, greatest = type_limits(dtype)
    offset = affine.offset
    given = parameters(min(low, offset), max(high, offset), dtype)
    if least < 0:
        return given if abs(offset) <= LARGEST_ROUNDING * given.scale else None
    steps = int(abs(offset) / given.scale)
    if steps == 0:
        return given if abs(offset) <= LARGEST_ROUNDING * given.scale else None
    scale = abs(offset) / steps
    low, high = min(low, offset, 0.0), max(high, offset, 0.0)
    zero_point = round(-low / scale)
    while (high / scale) + zero_point > greatest + 0.5 and steps > 1:  # rounding of the zero point may push out
        steps -= 1
        scale = abs(offset) / steps
        zero_point = round(-low / scale)
    return replace(given, scale=scale, zero_point=zero_point)


def root_parameters(read: Parameters, affine: Affine) -> Parameters:
    """The parameters that the root is quantized with, when its image is read with `read`."""
    steps = round(affine.offset / read.scale)
    return replace(read, scale=read.scale / affine.factor, zero_point=read.zero_point + steps)
