"""Quantization of each row by its own range, as operators with the attribute `dynamic` do it to their results."""

from __future__ import annotations

import numpy as np

from onnxcompress.ops.op import Array
from onnxcompress.ops.quantization import quantize

LEAST_SCALE = 1e-12
"""Scale of a row of zeros."""


def quantize_rows_reference(x: Array) -> tuple[Array, Array, Array]:
    """Each row of x [..., C] as uint8, asymmetric over its range extended to contain 0.

    Returns:
        q uint8 [..., C], scale float32 [..., 1], zero_point uint8 [..., 1]; x is about (q - zero_point) * scale.
    """
    low = np.minimum(x.min(axis=-1, keepdims=True), 0)
    high = np.maximum(x.max(axis=-1, keepdims=True), 0)
    scale = np.maximum((high - low) / 255, LEAST_SCALE).astype(np.float32)
    zero_point = np.clip(np.rint(-low / scale.astype(np.float64)), 0, 255).astype(np.uint8)
    return quantize(x, scale, zero_point), scale, zero_point


def quantize_rows_body(x: str, q: str, scale: str, zero_point: str) -> str:
    """Nodes of a function body that do the same to the float `x`.

    QuantizeLinear with a scale for each row of a matrix is one fast pass in ONNX Runtime.
    """
    return f"""
        last_axis = Constant <value_ints = [-1]> ()
        per_step = Constant <value_float = {1 / 255:.9e}> ()
        least_high = Constant <value_float = {255 * LEAST_SCALE}> ()
        unit_step = Constant <value_float = 1.0> ()
        row_min = ReduceMin <keepdims = 1> ({x}, last_axis)
        row_max = ReduceMax <keepdims = 1> ({x}, last_axis)
        min_negated = Neg (row_min)
        below_zero = Relu (min_negated)
        above_zero = Clip (row_max, least_high)
        range = Add (above_zero, below_zero)
        {scale} = Mul (range, per_step)
        zero_steps = Div (below_zero, {scale})
        {zero_point} = QuantizeLinear (zero_steps, unit_step)
        rows = Flatten <axis = -1> ({x})
        scale_of_each = Reshape ({scale}, last_axis)
        zero_of_each = Reshape ({zero_point}, last_axis)
        rows_quantized = QuantizeLinear <axis = 0> (rows, scale_of_each, zero_of_each)
        shape_of_rows = Shape ({x})
        {q} = Reshape <allowzero = 1> (rows_quantized, shape_of_rows)
    """
