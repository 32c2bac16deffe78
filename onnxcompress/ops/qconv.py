"""QConv: a convolution of quantized images, with its activation and residual sum."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.lookup import HINTS, look_up
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import dequantize, quantize

_INPUTS = (
    Port("x", ("uint8", "float")),
    *parameters("x"),
    Port("w", ("int8",), constant=True),
    Port("w_scale", ("float",), constant=True),
    Port("bias", ("float",), optional=True, constant=True),
    *parameters("y", optional=True),
    TABLE,
    Port("residual", ("uint8",), optional=True),
    *parameters("residual", optional=True),
    *parameters("inner", optional=True),
    *parameters("final", optional=True),
)


def _reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, Array | None]:
    given = {port.name: value for port, value in zip(_INPUTS, inputs, strict=True) if value is not None}
    x, scale, zero = given["x"], given["x_scale"], given["x_zero_point"]
    if attributes["x_layout"] == "NCHW":
        x = quantize(x, scale, zero).transpose(0, 2, 3, 1)
    sums = _convolve(x, zero, given["w"], attributes)
    real = sums * (np.float64(scale) * given["w_scale"].astype(np.float64)) + given.get("bias", np.float64(0))
    residual: Array | float = 0.0
    if "residual" in given:
        residual = dequantize(given["residual"], given["residual_scale"], given["residual_zero_point"])
    after = bool(attributes["residual_after"])
    total = real if after else real + residual
    y_float = total.transpose(0, 3, 1, 2) if attributes["y_layout"] == "NCHW" else total
    if "y_scale" not in given:
        return None, y_float.astype(np.float32)
    y = quantize(total, given["y_scale"], given["y_zero_point"])
    if "table" in given:
        y = given["table"][y]
    if after:
        inner = dequantize(y, given["inner_scale"], given["inner_zero_point"])
        y = quantize(inner + residual, given["final_scale"], given["final_zero_point"])
    return y, y_float.astype(np.float32)


def _convolve(x: Array, zero: Array, w: Array, attributes: Attributes) -> Array:
    """Exact sums, float64 [N, OH, OW, M], of x u8 [N, H, W, C] less its zero point and w [M, kh, kw, C/group]."""
    top, left, bottom, right = cast("tuple[int, ...]", attributes["pads"])
    (sy, sx), (dy, dx) = (cast("tuple[int, int]", attributes[name]) for name in ("strides", "dilations"))
    group = cast("int", attributes["group"])
    centred = np.pad(x.astype(np.float64) - float(zero), ((0, 0), (top, bottom), (left, right), (0, 0)))
    m, kh, kw, c = w.shape
    rows, columns = (
        (size - d * (k - 1) - 1) // s + 1
        for size, d, k, s in zip(centred.shape[1:3], (dy, dx), (kh, kw), (sy, sx), strict=True)
    )
    sums = np.zeros((x.shape[0], rows, columns, m))
    for ky in range(kh):
        for kx in range(kw):
            piece = centred[
                :, ky * dy : ky * dy + (rows - 1) * sy + 1 : sy, kx * dx : kx * dx + (columns - 1) * sx + 1 : sx
            ]
            for g in range(group):
                chosen = slice(g * m // group, (g + 1) * m // group)
                sums[..., chosen] += piece[..., g * c : (g + 1) * c] @ w[chosen, ky, kx].astype(np.float64).T
    return sums


def _body(variant: Variant) -> str:
    """In NCHW, for that is where stock kernels are; the transposes of neighbours cancel once inlined."""
    parts = ["w_oihw = Transpose <perm = [0, 3, 1, 2]> (w)"]
    if variant.attributes["x_layout"] == "NCHW":
        parts.append("x_nchw = QuantizeLinear (x, x_scale, x_zero_point)")
    else:
        parts.append("x_nchw = Transpose <perm = [0, 3, 1, 2]> (x)")
    if variant.has("residual"):
        parts.append("r_nchw = Transpose <perm = [0, 3, 1, 2]> (residual)")
        parts.append("r_real = DequantizeLinear (r_nchw, residual_scale, residual_zero_point)")
    if "y_float" in variant.outputs:
        parts += _real(variant, "y_nchw")
        parts += _leave("y_nchw", "y_float", variant.attributes["y_layout"] == "NHWC")
        return "\n".join(parts)
    after, table = bool(variant.attributes["residual_after"]), variant.has("table")
    if not variant.has("residual"):
        parts += _integer(variant, "y_scale", "y_zero_point", "q_nchw")
    elif after:
        parts += _integer(variant, "y_scale", "y_zero_point", "q_nchw")
        parts += look_up(variant, "q_nchw", "t_nchw") if table else ["t_nchw = Identity (q_nchw)"]
        parts += _add("t_nchw", "final_scale", "final_zero_point", "y_nchw")
    elif variant.has("inner_scale"):
        parts += _integer(variant, "inner_scale", "inner_zero_point", "i_nchw")
        parts += _add("i_nchw", "y_scale", "y_zero_point", "q_nchw")
    else:
        parts += _real(variant, "sum_nchw")
        parts.append("q_nchw = QuantizeLinear (sum_nchw, y_scale, y_zero_point)")
    if not (variant.has("residual") and after):
        parts += look_up(variant, "q_nchw", "y_nchw") if table else ["y_nchw = Identity (q_nchw)"]
    return "\n".join(parts + _leave("y_nchw", "y", True))


def _integer(variant: Variant, scale: str, zero: str, result: str) -> list[str]:
    """QLinearConv. The bias in steps of the sums is computed from constants, and so at load."""
    bias = []
    if variant.has("bias"):
        bias = [
            "step = Mul (x_scale, w_scale)",
            "bias_steps = Div (bias, step)",
            "bias_whole = Round (bias_steps)",
            "most = Constant <value_float = 1073741824.0> ()",
            "least = Neg (most)",
            "bias_clipped = Clip (bias_whole, least, most)",
            "bias_int = Cast <to = 6> (bias_clipped)",
        ]
    last = ", bias_int" if bias else ""
    return [
        *bias,
        "w_zero = Constant <value = int8 {0}> ()",
        f"{result} = QLinearConv <{_geometry(variant)}> "
        f"(x_nchw, x_scale, x_zero_point, w_oihw, w_scale, w_zero, {scale}, {zero}{last})",
    ]


def _real(variant: Variant, result: str) -> list[str]:
    """In floats, with the residual: for real results, and for sums of which no range is known before the residual."""
    last = ", bias" if variant.has("bias") else ""
    residual = variant.has("residual")
    return [
        "x_real = DequantizeLinear (x_nchw, x_scale, x_zero_point)",
        "w_float = Cast <to = 1> (w_oihw)",
        "per_channel = Constant <value_ints = [-1, 1, 1, 1]> ()",
        "w_scale_4d = Reshape (w_scale, per_channel)",
        "w_real = Mul (w_float, w_scale_4d)",
        f"{'conv_real' if residual else result} = Conv <{_geometry(variant)}> (x_real, w_real{last})",
        *([f"{result} = Add (conv_real, r_real)"] if residual else []),
    ]


def _add(q: str, scale: str, zero: str, result: str) -> list[str]:
    """q + residual. ONNX Runtime makes one QLinearAdd of it. q is in steps of inner_scale."""
    return [
        f"inner_real = DequantizeLinear ({q}, inner_scale, inner_zero_point)",
        "total = Add (inner_real, r_real)",
        f"{result} = QuantizeLinear (total, {scale}, {zero})",
    ]


def _leave(nchw: str, result: str, transposed: bool) -> list[str]:
    return [f"{result} = Transpose <perm = [0, 2, 3, 1]> ({nchw})" if transposed else f"{result} = Identity ({nchw})"]


def _geometry(variant: Variant) -> str:
    a = variant.attributes
    lists = (
        f"{name} = [{', '.join(map(str, cast('tuple[int, ...]', a[name])))}]"
        for name in ("strides", "pads", "dilations")
    )
    return f"{', '.join(lists)}, group = {a['group']}"


QCONV = Op(
    "QConv",
    inputs=_INPUTS,
    outputs=(Port("y", ("uint8",), optional=True), Port("y_float", ("float",), optional=True)),
    attributes={
        "strides": (1, 1),
        "pads": (0, 0, 0, 0),
        "dilations": (1, 1),
        "group": 1,
        "x_layout": "NHWC",
        "y_layout": "NHWC",
        "residual_after": 0,
        **HINTS,
    },
    reference=_reference,
    body=_body,
    doc="""A convolution with x_scale * w_scale * sum((x - x_zero_point) * w) + bias, in real units, as `real`.

    x: uint8 [N, H, W, C], or with x_layout = "NCHW" float [N, C, H, W] that is quantized first (NaN becomes 0).
    w: int8 [M, kh, kw, C/group]; w_scale float [] or [M]; bias float [M]. pads: top, left, bottom, right, with real 0.
    residual: uint8 [N, OH, OW, M].
    Without y_scale, y_float = real + residual, [N, OH, OW, M] or with y_layout = "NCHW" [N, M, OH, OW].
    With y_scale, y uint8 [N, OH, OW, M]:
    residual_after = 0: y = table[quantize(real + residual, y)]. inner_scale and inner_zero_point, where given, tell
    the range of `real` to the function body, which must quantize before it adds; kernels do not look at them.
    residual_after = 1: y = quantize(dequantize(table[quantize(real, y)], inner) + residual, final).""",
)
