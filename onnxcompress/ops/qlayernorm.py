"""QLayerNorm: layer normalization of a sum, to floats and to bytes."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.qlinear import divide_body, has_vector, quantize_body
from onnxcompress.ops.quantization import quantize
from onnxcompress.ops.row_quantization import quantize_rows_body, quantize_rows_reference

NORM_INPUTS = (
    Port("gamma", ("float",), constant=True),
    Port("beta", ("float",), optional=True, constant=True),
    *parameters("q", optional=True),
)
NORM_OUTPUTS = (
    Port("y", ("float",), optional=True),
    Port("q", ("uint8",), optional=True),
    Port("row_scale", ("float",), optional=True),
    Port("row_zero_point", ("uint8",), optional=True),
    Port("sum", ("float",), optional=True),
)
NORM_ATTRIBUTES: Attributes = {"epsilon": 1e-5, "dynamic": 0}
"""Inputs, outputs and attributes of every operator that ends with a layer normalization."""


def norm_reference(
    attributes: Attributes, total: Array, gamma: Array, beta: Array | None, q_scale: Array | None, q_zero: Array | None
) -> tuple[Array | None, ...]:
    """All outputs, from the sum [..., C] before the normalization."""
    total = total.astype(np.float64)
    centred = total - total.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    y = centred / np.sqrt(variance + cast("float", attributes["epsilon"])) * gamma + (0 if beta is None else beta)
    q = row_scale = row_zero = None
    if attributes["dynamic"]:
        q, row_scale, row_zero = quantize_rows_reference(y if q_scale is None else y / q_scale)
    elif q_scale is not None:
        q = quantize(y, q_scale, 0 if q_zero is None else q_zero)
    return y.astype(np.float32), q, row_scale, row_zero, total.astype(np.float32)


def norm_body(variant: Variant, total: str) -> str:
    """Nodes that compute the outputs but `sum` from the float `total`."""
    rows = bool(variant.attributes["dynamic"])
    wants_q = rows or "q" in variant.outputs
    divides = wants_q and (has_vector(variant, "q_scale") or (rows and variant.has("q_scale")))
    y = "y" if "y" in variant.outputs else "normalized"
    folded = divides and y == "normalized"  # the scale goes into the constants
    vectors, text = ["gamma", "beta"] if variant.has("beta") else ["gamma"], ""
    if folded:
        text = "\n".join(divide_body(vector, "q_scale", f"{vector}_over") for vector in vectors) + "\n"
        vectors = [f"{vector}_over" for vector in vectors]
    epsilon = float(cast("float", variant.attributes["epsilon"]))
    text += f"{y} = LayerNormalization <axis = -1, epsilon = {epsilon!r}> ({', '.join([total, *vectors])})\n"
    if not wants_q:
        return text
    if not rows:
        return text + quantize_body(variant, y, "q", "q_scale", "q_zero_point", folded)
    if divides and not folded:
        text, y = text + divide_body(y, "q_scale", "smoothed") + "\n", "smoothed"
    names = [name if name in variant.outputs else f"{name}_unread" for name in ("q", "row_scale", "row_zero_point")]
    return text + quantize_rows_body(y, *names)


def sum_body(total: str, *terms: str) -> str:
    """The sum before a normalization; ONNX Runtime would make a slow SkipLayerNormalization of Add."""
    return f"{total} = Sum ({', '.join(terms)})"


def _reference(
    attributes: Attributes, x: Array, residual: Array | None, *constants: Array | None
) -> tuple[Array | None, ...]:
    gamma, beta, q_scale, q_zero = constants
    assert gamma is not None
    total = x if residual is None else x.astype(np.float64) + residual
    return norm_reference(attributes, total, gamma, beta, q_scale, q_zero)


def _body(variant: Variant) -> str:
    total, text = "x", ""
    if variant.has("residual"):
        total = "sum" if "sum" in variant.outputs else "total"
        text = sum_body(total, "x", "residual") + "\n"
    elif "sum" in variant.outputs:
        text = "sum = Identity (x)\n"
    return text + norm_body(variant, total)


QLAYERNORM = Op(
    "QLayerNorm",
    inputs=(Port("x", ("float",)), Port("residual", ("float",), optional=True), *NORM_INPUTS),
    outputs=NORM_OUTPUTS,
    attributes=NORM_ATTRIBUTES,
    reference=_reference,
    body=_body,
    doc="""sum = x + residual; y = (sum - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis; and
        q = saturate(round(y / q_scale) + q_zero_point), with q_scale, or
        q, row_scale and row_zero_point, with dynamic = 1: each row of y (over q_scale, where it is given: it then
        smooths the channels) is quantized by its own range, which is extended to contain 0.

        x, residual: float [..., C]. gamma, beta: float [C]. q_scale: float [] or [C], q_zero_point: uint8 [].""",
)
