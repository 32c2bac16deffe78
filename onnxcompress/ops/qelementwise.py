"""QElementwise: sum, difference or product of a quantized tensor and another one, or a value per channel."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.lookup import HINTS, look_up
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import dequantize, quantize


def _reference(
    attributes: Attributes,
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array | None,
    b_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array,
    table: Array | None,
) -> tuple[Array]:
    upsample = cast(int, attributes["upsample"])
    if upsample > 1:
        b = b.repeat(upsample, axis=1).repeat(upsample, axis=2)
    left = dequantize(a, a_scale, a_zero_point)
    right = b.astype(np.float64)
    if b.dtype == np.uint8:
        right = dequantize(b, 1.0 if b_scale is None else b_scale, 0 if b_zero_point is None else b_zero_point)
    combine = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[str(attributes["operation"])]
    with np.errstate(invalid="ignore", over="ignore"):
        y = quantize(combine(left, right), y_scale, y_zero_point)
    return (y if table is None else table[y],)


def _body(variant: Variant) -> str:
    # Dequantize, combine, quantize: ONNX Runtime makes one integer node of them.
    operation = {"add": "Add", "sub": "Sub", "mul": "Mul"}[str(variant.attributes["operation"])]
    lines = ["left = DequantizeLinear (a, a_scale, a_zero_point)"]
    b, factor = "b", cast(int, variant.attributes["upsample"])
    if factor > 1:
        lines += [
            "axes = Constant <value_ints = [2, 4]> ()",
            "apart = Unsqueeze (b, axes)",
            f"factors = Constant <value_ints = [1, 1, {factor}, 1, {factor}, 1]> ()",
            "repeated = Expand (apart, factors)",
            "shape = Shape (a)",
            "large = Reshape (repeated, shape)",
        ]
        b = "large"
    if variant.inputs["b"] == "uint8":
        scale, zero = "b_scale", "b_zero_point"
        if not variant.has(scale):
            lines.append("one = Constant <value_float = 1.0> ()")
            scale = "one"
        parameters = f"{scale}, {zero}" if variant.has(zero) else scale
        lines.append(f"right = DequantizeLinear ({b}, {parameters})")
        b = "right"
    lines.append(f"real = {operation} (left, {b})")
    if not variant.has("table"):
        return "\n".join([*lines, "y = QuantizeLinear (real, y_scale, y_zero_point)"])
    lines.append("q = QuantizeLinear (real, y_scale, y_zero_point)")
    return "\n".join([*lines, *look_up(variant, "q", "y")])


QELEMENTWISE = Op(
    "QElementwise",
    inputs=(
        Port("a", ("uint8",)),
        *parameters("a"),
        Port("b", ("uint8", "float")),
        *parameters("b", optional=True),
        *parameters("y"),
        TABLE,
    ),
    outputs=(Port("y", ("uint8",)),),
    reference=_reference,
    body=_body,
    attributes={"operation": "add", "upsample": 1, **HINTS},
    doc=(
        "y = table[quantize(a op b)], operation = add | sub | mul. a: uint8. b: uint8, or float in real units; of a's "
        "shape, or [N or 1, 1, ..., C] (a value per channel), or uint8 [N, H / upsample, W / upsample, C] (nearest)."
    ),
)
