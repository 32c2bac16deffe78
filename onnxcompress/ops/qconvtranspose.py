"""QConvTranspose: a transposed convolution of quantized images, channels last."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.lookup import HINTS, look_up
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import quantize

_INPUTS = (
    Port("x", ("uint8",)),
    *parameters("x"),
    Port("w", ("int8",), constant=True),
    Port("w_scale", ("float",), constant=True),
    Port("bias", ("float",), optional=True, constant=True),
    *parameters("y", optional=True),
    TABLE,
)


def _reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, Array | None]:
    given = {port.name: value for port, value in zip(_INPUTS, inputs, strict=True) if value is not None}
    sums = _scatter(given["x"].astype(np.float64) - float(given["x_zero_point"]), given["w"], attributes)
    real = sums * (np.float64(given["x_scale"]) * given["w_scale"].astype(np.float64)) + given.get(
        "bias", np.float64(0)
    )
    y_float = real.transpose(0, 3, 1, 2) if attributes["y_layout"] == "NCHW" else real
    if "y_scale" not in given:
        return None, y_float.astype(np.float32)
    y = quantize(real, given["y_scale"], given["y_zero_point"])
    return given["table"][y] if "table" in given else y, y_float.astype(np.float32)


def _scatter(x: Array, w: Array, attributes: Attributes) -> Array:
    """Exact sums, float64 [N, OH, OW, M], of x [N, H, W, C] scattered through w [M, kh, kw, C]."""
    strides, extra = (cast("tuple[int, int]", attributes[name]) for name in ("strides", "output_padding"))
    top, left, bottom, right = cast("tuple[int, int, int, int]", attributes["pads"])
    (n, height, width, _), (m, kh, kw, _) = x.shape, w.shape
    (sy, sx), rows, columns = strides, (height - 1) * strides[0] + kh, (width - 1) * strides[1] + kw
    whole = np.zeros((n, rows + extra[0], columns + extra[1], m))
    for ky in range(kh):
        for kx in range(kw):
            products = x @ w[:, ky, kx].astype(np.float64).T
            whole[:, ky : ky + (height - 1) * sy + 1 : sy, kx : kx + (width - 1) * sx + 1 : sx] += products
    return whole[:, top : rows + extra[0] - bottom, left : columns + extra[1] - right]


def _body(variant: Variant) -> str:
    """In floats: ONNX Runtime has no integer kernel for it.

    Without DequantizeLinear: between it and QuantizeLinear, ONNX Runtime quantizes the weights anew, all by one scale.
    """
    a = variant.attributes
    lists = (f"{name} = [{', '.join(map(str, cast('tuple[int, ...]', a[name])))}]" for name in _GEOMETRY)
    lines = [
        "x_nchw = Transpose <perm = [0, 3, 1, 2]> (x)",
        "x_float = Cast <to = 1> (x_nchw)",
        "zero = Cast <to = 1> (x_zero_point)",
        "centred = Sub (x_float, zero)",
        "w_iohw = Transpose <perm = [3, 0, 1, 2]> (w)",
        "w_float = Cast <to = 1> (w_iohw)",
        "per_channel = Constant <value_ints = [1, -1, 1, 1]> ()",
        "scale = Mul (w_scale, x_scale)",
        "scale_4d = Reshape (scale, per_channel)",
        "w_real = Mul (w_float, scale_4d)",
        f"real = ConvTranspose <{', '.join(lists)}> (centred, w_real{', bias' if variant.has('bias') else ''})",
    ]
    if "y_float" in variant.outputs:
        planes = a["y_layout"] == "NCHW"
        return "\n".join([*lines, f"y_float = {'Identity' if planes else 'Transpose <perm = [0, 2, 3, 1]>'} (real)"])
    q = "q_nchw" if variant.has("table") else "y_nchw"
    lines.append(f"{q} = QuantizeLinear (real, y_scale, y_zero_point)")
    if variant.has("table"):
        lines += look_up(variant, "q_nchw", "y_nchw")
    return "\n".join([*lines, "y = Transpose <perm = [0, 2, 3, 1]> (y_nchw)"])


_GEOMETRY = ("strides", "pads", "output_padding")

QCONVTRANSPOSE = Op(
    "QConvTranspose",
    inputs=_INPUTS,
    outputs=(Port("y", ("uint8",), optional=True), Port("y_float", ("float",), optional=True)),
    attributes={"strides": (1, 1), "pads": (0, 0, 0, 0), "output_padding": (0, 0), "y_layout": "NHWC", **HINTS},
    reference=_reference,
    body=_body,
    doc="""A transposed convolution: real = x_scale * w_scale * sum((x - x_zero_point) * w) + bias, where the pixel at
    (h, w) is added, through the window, to the OH x OW result at (h * strides[0] - top, w * strides[1] - left).

    x: uint8 [N, H, W, C]; w: int8 [M, kh, kw, C]; w_scale float [] or [M]; bias float [M].
    pads: top, left, bottom, right, cut off; OH = (H - 1) * strides[0] + kh - top - bottom + output_padding[0].
    With y_scale, y = table[quantize(real)], uint8 [N, OH, OW, M].
    Without, y_float = real, [N, OH, OW, M] or with y_layout = "NCHW" [N, M, OH, OW].""",
)
