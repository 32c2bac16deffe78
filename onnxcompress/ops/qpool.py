"""QPool: the greatest or the mean of windows of an image, or the mean of all of it."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.channel_means import channel_means
from onnxcompress.ops.lookup import HINTS, look_up
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import dequantize, quantize


def _windows(size: int, kernel: int, stride: int, before: int, after: int, ceil_mode: bool) -> list[int]:
    """Where the windows along one axis begin, padding included (ONNX: none begins in the padding behind)."""
    span = size + before + after - kernel
    # Below zero the division rounds up, as in ONNX Runtime: an image less than a stride too small gives a window.
    count = int((span + (stride - 1 if ceil_mode else 0)) / stride) + 1
    starts = [i * stride - before for i in range(count)]
    return [start for start in starts if not ceil_mode or start < size]


def _reference(
    attributes: Attributes,
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    table: Array | None,
) -> tuple[Array]:
    mode = attributes["mode"]
    if mode == "global_average":
        y = quantize(dequantize(x, x_scale, x_zero_point).mean((1, 2), keepdims=True), y_scale, y_zero_point)
        return (y if table is None else table[y],)
    height, width = x.shape[1:3]
    kh, kw = cast("tuple[int, int]", attributes["kernel_shape"])
    sh, sw = cast("tuple[int, int]", attributes["strides"])
    top, left, bottom, right = cast("tuple[int, int, int, int]", attributes["pads"])
    ceil_mode = bool(attributes["ceil_mode"])
    rows, columns = _windows(height, kh, sh, top, bottom, ceil_mode), _windows(width, kw, sw, left, right, ceil_mode)
    y = np.empty((x.shape[0], len(rows), len(columns), x.shape[3]), np.uint8)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            window = x[:, max(r, 0) : r + kh, max(c, 0) : c + kw]
            if mode == "max":
                y[:, i, j] = window.max((1, 2))
                continue
            count = window.shape[1] * window.shape[2]
            if attributes["count_include_pad"]:
                count = (min(r + kh, height + bottom) - r) * (min(c + kw, width + right) - c)
            y[:, i, j] = quantize(dequantize(window, x_scale, x_zero_point).sum((1, 2)) / count, y_scale, y_zero_point)
    return (y if table is None else table[y],)


def _window(attributes: Attributes) -> str:
    """The attributes that the standard operators share."""
    names = ("kernel_shape", "strides", "pads")
    lists = ", ".join(f"{name} = {list(cast('tuple[int, ...]', attributes[name]))}" for name in names)
    return f"{lists}, ceil_mode = {attributes['ceil_mode']}"


def _body(variant: Variant) -> str:
    mode = str(variant.attributes["mode"])
    result = "q" if variant.has("table") else "y"
    if mode == "global_average":
        lines = [
            *channel_means("x"),
            "q3 = QuantizeLinear (mean, y_scale, y_zero_point)",
            "axis = Constant <value_ints = [1]> ()",
            f"{result} = Unsqueeze (q3, axis)",
        ]
    elif mode == "max":
        lines = [
            "nchw = Transpose <perm = [0, 3, 1, 2]> (x)",
            f"pooled = MaxPool <{_window(variant.attributes)}> (nchw)",
            f"{result} = Transpose <perm = [0, 2, 3, 1]> (pooled)",
        ]
    else:
        # Not DequantizeLinear, AveragePool, QuantizeLinear: ONNX Runtime's fused form of them takes 4 times as long.
        include = variant.attributes["count_include_pad"]
        lines = [
            "nchw = Transpose <perm = [0, 3, 1, 2]> (x)",
            "steps = Cast <to = 1> (nchw)",
            "zero_float = Cast <to = 1> (x_zero_point)",
            "shifted = Sub (steps, zero_float)",
            f"pooled = AveragePool <{_window(variant.attributes)}, count_include_pad = {include}> (shifted)",
            "mean = Mul (pooled, x_scale)",
            "q_nchw = QuantizeLinear (mean, y_scale, y_zero_point)",
            f"{result} = Transpose <perm = [0, 2, 3, 1]> (q_nchw)",
        ]
    if variant.has("table"):
        lines += look_up(variant, "q", "y")
    return "\n".join(lines)


QPOOL = Op(
    "QPool",
    inputs=(
        Port("x", ("uint8",)),
        *parameters("x"),
        *parameters("y"),
        TABLE,
    ),
    outputs=(Port("y", ("uint8",)),),
    reference=_reference,
    body=_body,
    attributes={
        "mode": "max",
        "kernel_shape": (1, 1),
        "strides": (1, 1),
        "pads": (0, 0, 0, 0),
        "ceil_mode": 0,
        "count_include_pad": 0,
        **HINTS,
    },
    doc=(
        "mode = max | average | global_average of x: uint8 [N, H, W, C], as MaxPool, AveragePool and "
        "GlobalAveragePool. y: uint8 [N, H', W', C]. For max the parameters of y equal those of x."
    ),
)
