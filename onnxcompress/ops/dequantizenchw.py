"""DequantizeNCHW: the exit of the quantized layout."""

from __future__ import annotations

import numpy as np

from onnxcompress.ops.lookup import gather
from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import dequantize


def _reference(
    attributes: Attributes, x: Array, x_scale: Array, x_zero_point: Array, values: Array | None
) -> tuple[Array]:
    nchw = x.transpose(0, 3, 1, 2)
    y = dequantize(nchw, x_scale, x_zero_point) if values is None else values[nchw]
    return (np.ascontiguousarray(y).astype(np.float32),)


def _body(variant: Variant) -> str:
    if not variant.has("values"):
        return """
            q = Transpose <perm = [0, 3, 1, 2]> (x)
            y = DequantizeLinear (q, x_scale, x_zero_point)
        """
    return "\n".join(["q = Transpose <perm = [0, 3, 1, 2]> (x)", *gather("q", "y", "values")])


DEQUANTIZENCHW = Op(
    "DequantizeNCHW",
    inputs=(
        Port("x", ("uint8",)),
        *parameters("x"),
        Port("values", ("float",), optional=True, constant=True),
    ),
    outputs=(Port("y", ("float",)),),
    reference=_reference,
    body=_body,
    doc=(
        "y: float [N, C, H, W] = (x - x_zero_point) * x_scale, or values[x] where the 256 values of a byte are given "
        "(any element-wise function). x: uint8 [N, H, W, C]."
    ),
)
