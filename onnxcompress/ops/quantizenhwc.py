"""QuantizeNHWC: the entry of the quantized layout."""

from __future__ import annotations

import numpy as np

from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import quantize


def _reference(attributes: Attributes, x: Array, y_scale: Array, y_zero_point: Array) -> tuple[Array]:
    return (np.ascontiguousarray(quantize(x, y_scale, y_zero_point).transpose(0, 2, 3, 1)),)


def _body(variant: Variant) -> str:
    return """
        q = QuantizeLinear (x, y_scale, y_zero_point)
        y = Transpose <perm = [0, 2, 3, 1]> (q)
    """


QUANTIZENHWC = Op(
    "QuantizeNHWC",
    inputs=(
        Port("x", ("float",)),
        *parameters("y"),
    ),
    outputs=(Port("y", ("uint8",)),),
    reference=_reference,
    body=_body,
    doc="y: uint8 [N, H, W, C] = quantize(x), x: float [N, C, H, W].",
)
