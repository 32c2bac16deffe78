"""Cases of QConv."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(0)
_inputs = (np.arange(256) - 128) / 16
# Of slope below 1, so that a step before it is at most one after it.
_SILU = np.rint(_inputs / (1 + np.exp(-_inputs)) * 14 + 30).astype(np.uint8)


def _case(
    name: str,
    x: tuple[int, int, int, int] | Array,
    m: int,
    kernel: int | tuple[int, int] = 1,
    *,
    group: int = 1,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] | int = 0,
    dilations: tuple[int, int] = (1, 1),
    zero: int = 120,
    y_zero: int = 128,
    bias: bool = True,
    per_channel: bool = True,
    table: Array | None = None,
    residual: bool = False,
    after: bool = False,
    inner: bool = False,
    output: str = "y",
    layout: str = "NHWC",
    w: int | None = None,
    gain: float = 1.0,
    **limits: Any,
) -> Case:
    """x: an array, or the shape NHWC of random bytes. w: the value of all weights. gain: of the output's scale."""
    data = x if isinstance(x, np.ndarray) else _rng.integers(0, 256, x).astype(np.uint8)
    stem = data.dtype == np.float32
    n, height, width, c = np.array(data.shape)[[0, 2, 3, 1]] if stem else data.shape
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    all_pads = (pads,) * 4 if isinstance(pads, int) else pads
    shape = (m, kh, kw, int(c) // group)
    weights = _rng.integers(-127, 128, shape).astype(np.int8) if w is None else np.full(shape, w, np.int8)
    x_scale = np.float32(0.02)
    w_scale = _rng.uniform(0.5, 1.5, m if per_channel else ()).astype(np.float32) * np.float32(0.01)
    y_scale = np.float32(gain * x_scale * 0.01 * np.sqrt(kh * kw * shape[3]) * 90)
    rows = (height + all_pads[0] + all_pads[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    columns = (width + all_pads[1] + all_pads[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    quantized, byte = output == "y", np.uint8
    inner_scale = y_scale * np.float32(1 if after else 2.5)
    inputs: list[Any] = [data, x_scale, byte(zero), weights, w_scale]
    inputs.append(_rng.normal(0, float(y_scale) * 30, m).astype(np.float32) if bias else None)
    inputs += [y_scale, byte(y_zero)] if quantized else [None, None]
    inputs.append(table)
    if residual:
        inputs.append(_rng.integers(0, 256, (n, rows, columns, m)).astype(byte))
        inputs += [y_scale * np.float32(0.7), byte(90)]
    if inner or after:
        inputs += [inner_scale, byte(y_zero)]
    if after:
        inputs += [y_scale * np.float32(1.5), byte(100)]
    attributes = {"strides": strides, "pads": all_pads, "dilations": dilations, "group": group, "y_layout": layout}
    attributes |= {"x_layout": "NCHW" if stem else "NHWC", "residual_after": int(after)}
    return Case("QConv", name, inputs, attributes, (output,), **limits)


def _image(n: int, c: int, height: int, width: int) -> Array:
    return _rng.normal(0.3, 1.5, (n, c, height, width)).astype(np.float32)


def _white(*shape: int) -> Array:
    return np.full(shape, 255, np.uint8)


def _checkered(*shape: int) -> Array:
    """Zeros and 255s at random, whose transformed values are the largest."""
    return _rng.choice(np.array([0, 255], np.uint8), shape)


def _wild() -> Array:
    image = _image(1, 3, 9, 20)
    image.reshape(-1)[::7][:12] = [np.inf, -np.inf, 1e38, -1e38] * 3
    return image


def _with_nan() -> Array:
    image = _image(1, 3, 9, 20)
    image[:, :, ::3, ::2] = np.nan
    return image


_FLOATS: dict[str, Any] = {"output": "y_float"}
_RESIDUAL: dict[str, Any] = {"residual": True}
_AFTER: dict[str, Any] = {"residual": True, "after": True}

POINTWISE = [
    _case("1x1", (1, 8, 9, 32), 64),
    _case("1x1 of 16 and 16 channels", (1, 5, 13, 16), 16),
    _case("1x1 of 24 and 32 channels", (1, 5, 13, 24), 32),
    _case("1x1 of 48 and 48 channels", (1, 7, 11, 48), 48),
    _case("1x1 of one and one channel", (1, 3, 5, 1), 1, zero=0),
    _case("1x1 with tails everywhere", (2, 7, 5, 67), 101),
    _case("1x1 on several threads' pixels", (2, 40, 41, 20), 40, table=_SILU),
    _case("1x1 of many channels and few pixels", (1, 3, 3, 260), 330),
    _case("1x1 strided", (2, 9, 10, 24), 32, strides=(2, 2)),
    _case("1x1 strided with channels that are no multiple of 4", (1, 9, 10, 21), 17, strides=(2, 3)),
    _case("1x1 padded", (1, 4, 4, 16), 16, pads=(1, 0, 0, 2)),
    _case("1x1 without a bias", (1, 4, 4, 16), 16, bias=False),
    _case("1x1 of one weight scale", (1, 4, 4, 16), 40, per_channel=False),
]
DENSE = [
    _case("7x7 64 to 150, lines of seven pixels", (2, 7, 7, 64), 150, 3, pads=1),
    _case("14x14 to 7x7, two groups", (1, 14, 14, 32), 144, 3, group=2, strides=(2, 2), pads=1),
    _case("3x3", (1, 12, 13, 32), 64, 3, pads=1),
    _case("3x3 of one channel", (1, 28, 28, 1), 8, 3),
    _case("3x3 of 24 channels", (2, 20, 21, 24), 24, 3, pads=1, table=_SILU),
    _case("3x3 strided, padded at one side", (1, 13, 16, 16), 48, 3, strides=(2, 2), pads=(0, 0, 1, 1)),
    _case("3x3 of odd channels", (2, 9, 8, 13), 37, 3, strides=(2, 1), pads=(1, 0, 2, 1)),
    _case("5x5 on a small image", (1, 3, 3, 16), 16, 5, pads=2),
    _case("1x7", (1, 9, 12, 16), 20, (1, 7), pads=(0, 3, 0, 3)),
    _case("7x1", (1, 9, 12, 18), 20, (7, 1), pads=(3, 0, 3, 0)),
    _case("2x2 strided by 2", (1, 8, 10, 16), 32, 2, strides=(2, 2)),
    _case("dilated", (1, 15, 14, 12), 20, 3, pads=2, dilations=(2, 2)),
    _case("dilated, strided, odd", (1, 15, 17, 7), 9, (3, 2), pads=(0, 3, 2, 1), dilations=(2, 3), strides=(1, 2)),
    _case("strided beyond the kernel", (1, 16, 17, 8), 16, 2, strides=(3, 4)),
    _case("a large strip", (1, 70, 90, 64), 32, 3, pads=1),
    _case("a whole window", (1, 7, 7, 40), 130, 7),
    _case("pads wider than the kernel", (1, 3, 2, 8), 8, 2, pads=(3, 4, 5, 2)),
    _case("an empty batch", (0, 5, 5, 8), 8, 3),
    _case("an empty batch for floats", (0, 5, 5, 8), 8, 3, **_FLOATS),
]
STEM = [
    _case("stem 3x3", _image(1, 3, 33, 40), 16, 3, strides=(2, 2), pads=1),
    _case("stem 7x7", _image(2, 3, 30, 31), 64, 7, strides=(2, 2), pads=3, table=_SILU),
    _case("stem of grey images", _image(1, 1, 28, 29), 24, 3, pads=1),
    _case("stem of two channels", _image(1, 2, 9, 35), 16, 3, pads=1),
    _case("stem of four channels", _image(1, 4, 9, 35), 16, 4, strides=(4, 4)),
    _case("stem of six channels", _image(2, 6, 9, 18), 20, 3, pads=(0, 1, 1, 0)),
    _case("stem of 35 channels", _image(1, 35, 9, 18), 20, 1),
    _case("stem dilated", _image(1, 3, 17, 23), 20, 3, pads=2, dilations=(2, 2)),
    _case("stem 1x1", _image(1, 3, 7, 7), 5, 1, **_FLOATS),
    _case("stem of infinities", _wild(), 16, 3, pads=1, skip={"reference_evaluator": "casts infinity to int32"}),
    _case(
        "stem of no numbers",
        _with_nan(),
        16,
        3,
        pads=1,
        skip=dict.fromkeys(("body", "reference_evaluator"), "QuantizeLinear leaves it open"),
    ),
    _case("stem of an empty batch", _image(0, 3, 8, 8), 16, 3),
    _case("stem in groups", _image(1, 6, 8, 9), 12, 3, group=3, pads=1),
]
GROUPED = [
    _case("two groups", (1, 9, 10, 32), 64, 3, group=2, pads=1),
    _case("groups of 4 channels", (1, 9, 10, 48), 48, 3, group=12, pads=1),
    _case("groups of 3 and 5 channels", (2, 6, 7, 21), 35, 3, group=7, pads=1, strides=(2, 2)),
    _case("groups 1x1", (1, 6, 7, 32), 96, 1, group=4),
    _case("groups 1x1 of odd channels", (1, 6, 7, 15), 9, 1, group=3),
    _case("groups with a residual and a table", (1, 6, 7, 24), 48, 3, group=3, pads=1, residual=True, inner=True,
          table=_SILU, body_steps=3),
    _case("groups to floats", (1, 6, 7, 24), 48, 3, group=3, pads=1, **_FLOATS),
    _case("groups to floats in planes", (1, 6, 7, 24), 60, 3, group=3, pads=1, layout="NCHW", **_FLOATS),
]  # fmt: skip
DEPTHWISE = [
    _case("depthwise 3x3", (1, 9, 10, 32), 32, 3, group=32, pads=1),
    _case("depthwise 3x3 strided", (2, 11, 12, 40), 40, 3, group=40, pads=1, strides=(2, 2), table=_SILU),
    _case("depthwise 5x5", (1, 11, 12, 64), 64, 5, group=64, pads=2),
    _case("depthwise 5x5 of six lines", (1, 6, 9, 40), 40, 5, group=40, pads=2, table=_SILU),
    _case("depthwise 5x5 of a line beyond four", (2, 5, 12, 16), 16, 5, group=16, pads=2, residual=True, inner=True,
          body_steps=3),
    _case("depthwise 5x5 to floats, two lines beyond four", (1, 6, 7, 20), 20, 5, group=20, pads=2, **_FLOATS),
    _case("depthwise of odd channels", (1, 11, 12, 7), 7, 3, group=7, pads=(0, 1, 1, 0)),
    _case("depthwise with a multiplier", (1, 6, 7, 6), 12, 3, group=6, pads=1),
    _case("depthwise dilated", (1, 11, 12, 16), 16, 3, group=16, pads=2, dilations=(2, 2)),
    _case("depthwise 7x7", (1, 11, 12, 24), 24, 7, group=24, pads=3),
    _case("depthwise to floats", (1, 6, 7, 24), 24, 3, group=24, pads=1, **_FLOATS),
    _case("depthwise with a residual", (1, 6, 7, 24), 24, 3, group=24, pads=1, residual=True, inner=True, body_steps=3),
    _case("depthwise with a residual after", (1, 6, 7, 24), 24, 3, group=24, pads=1, table=_SILU, **_AFTER,
          body_steps=4),
    # 64 channels and more, which 3x3 windows take column by column; a rest of 49 to 63 too, a smaller one not.
    _case("depthwise 3x3, 64 channels", (2, 5, 19, 64), 64, 3, group=64, pads=1, table=_SILU),
    _case("depthwise 3x3, 150 channels", (1, 6, 8, 150), 150, 3, group=150, pads=1),
    _case("depthwise 3x3, 120 channels", (1, 6, 9, 120), 120, 3, group=120, pads=(1, 2, 0, 0), zero=0),
    _case("depthwise 3x3 strided, 64 channels", (1, 12, 11, 64), 64, 3, group=64, pads=1, strides=(2, 2), table=_SILU),
    _case("depthwise 3x3 strided, 127 channels", (1, 9, 12, 127), 127, 3, group=127, pads=(0, 0, 1, 1), strides=(2, 2)),
    _case("depthwise 3x3 strided across", (1, 5, 16, 64), 64, 3, group=64, pads=1, strides=(1, 2), zero=255),
    _case("depthwise 3x3 strided down", (1, 8, 7, 64), 64, 3, group=64, pads=1, strides=(2, 1)),
    _case("depthwise 3x3 of one column", (1, 7, 1, 64), 64, 3, group=64, pads=1),
    _case("depthwise 3x3 of two columns", (1, 7, 2, 64), 64, 3, group=64, pads=1, strides=(1, 2)),
    _case("depthwise 3x3, padding alone at the sides", (1, 4, 3, 64), 64, 3, group=64, pads=(3, 4, 3, 5)),
    _case("depthwise 3x3 dilated down", (1, 9, 8, 64), 64, 3, group=64, pads=(2, 1, 2, 1), dilations=(2, 1)),
    _case("depthwise 3x3 to floats, 116 channels", (1, 6, 7, 116), 116, 3, group=116, pads=1, **_FLOATS),
    _case("depthwise 3x3 to planes, 64 channels", (1, 6, 7, 64), 64, 3, group=64, pads=1, layout="NCHW", **_FLOATS),
    _case("depthwise 3x3 with a residual, 124 channels", (1, 6, 7, 124), 124, 3, group=124, pads=1, residual=True,
          inner=True, body_steps=3),
    _case("depthwise 3x3 with a residual after, 64 channels", (1, 6, 7, 64), 64, 3, group=64, pads=1, table=_SILU,
          **_AFTER, body_steps=4),
]  # fmt: skip
# Those that are large enough for Winograd's algorithm, whose tiles are 4 x 4 outputs.
WINOGRAD = [
    _case("winograd", (1, 24, 28, 64), 64, 3, pads=1),
    _case("winograd, a tail of channels", (1, 24, 27, 68), 90, 3, pads=(1, 0, 2, 1), bias=False, per_channel=False),
    _case("winograd, odd outputs", (1, 32, 30, 44), 113, 3, pads=(0, 2, 1, 0), zero=0),
    _case("winograd, images of 25 tiles", (3, 20, 19, 64), 64, 3, pads=1, zero=255, table=_SILU),
    _case("winograd, few outputs", (1, 48, 48, 128), 20, 3, pads=1, zero=3),
    _case("winograd with a residual", (2, 22, 23, 64), 72, 3, pads=1, **_RESIDUAL),
    _case("winograd with a residual after", (1, 26, 25, 96), 64, 3, pads=1, table=_SILU, **_AFTER, body_steps=4),
    _case("winograd to floats", (1, 26, 25, 96), 75, 3, **_FLOATS),
    # Of one sign the weights of an output may sum up to 131586, so that its sum is below 2^25: 1036 of 127. Nine
    # times a multiple of four channels are 1008 of them.
    _case("winograd, the largest sums", _white(1, 20, 24, 112), 64, 3, pads=1, w=127, zero=0, gain=40),
    _case("winograd, the least sums", _white(1, 20, 24, 112), 64, 3, pads=1, w=-127, zero=0, gain=40),
    _case("winograd, weights that are not kept", (1, 20, 20, 172), 180, 3, pads=1, **_RESIDUAL),
    _case("winograd, weights that are not kept, to floats", (1, 22, 18, 132), 230, 3, **_FLOATS),
    _case("channels not in fours are not for winograd", (1, 24, 24, 62), 64, 3, pads=1),
    _case("sums too large for winograd", _white(1, 20, 24, 128), 64, 3, pads=1, w=127, zero=0, gain=40),
    _case("winograd, bytes of 0 and 255", _checkered(1, 24, 24, 64), 64, 3, pads=1),
]
EPILOGUES = [
    _case("a residual", (1, 9, 10, 32), 64, **_RESIDUAL),
    _case("a residual of 16 channels", (1, 9, 11, 32), 16, **_RESIDUAL),
    _case("a residual of 48 channels", (1, 9, 11, 32), 48, **_RESIDUAL),
    _case("a residual of a tail", (1, 9, 10, 30), 77, 3, pads=1, table=_SILU, **_RESIDUAL),
    _case("a residual and the range before it", (1, 9, 10, 32), 64, **_RESIDUAL, inner=True, body_steps=3),
    _case("a residual after the table", (1, 9, 10, 32), 64, table=_SILU, **_AFTER, body_steps=4),
    _case("a residual after, no table", (2, 9, 10, 20), 24, 3, pads=1, **_AFTER, body_steps=2),
    _case("a residual after, a tail", (1, 5, 5, 20), 75, table=_SILU, **_AFTER, body_steps=4),
    _case("a residual after, 16 channels", (1, 5, 7, 20), 16, table=_SILU, **_AFTER, body_steps=4),
    _case("a residual after, 32 channels", (1, 5, 7, 20), 32, table=_SILU, **_AFTER, body_steps=4),
    _case("a residual after, 48 channels", (1, 5, 7, 20), 48, table=_SILU, **_AFTER, body_steps=4),
    _case("a table", (1, 9, 10, 32), 64, table=_SILU, body_steps=3),
    _case("a table and a tail", (1, 9, 10, 32), 83, table=_SILU, body_steps=3),
    _case("floats", (1, 9, 10, 32), 64, **_FLOATS),
    _case("floats with a residual and a tail", (1, 9, 10, 32), 71, 3, **_FLOATS, **_RESIDUAL),
    _case("floats in planes", (2, 9, 10, 32), 64, layout="NCHW", **_FLOATS),
    _case("floats in planes, tails", (2, 9, 11, 33), 85, 3, pads=1, layout="NCHW", **_FLOATS),
    _case("floats in planes with a residual", (2, 5, 5, 16), 21, layout="NCHW", **_FLOATS, **_RESIDUAL),
    _case("one float plane", (1, 40, 50, 24), 1, layout="NCHW", **_FLOATS),
]
VALUES = [
    _case("zero point 0", (1, 6, 6, 16), 16, 3, pads=1, zero=0, y_zero=0),
    _case("zero point 255", (1, 6, 6, 16), 16, 3, pads=1, zero=255, y_zero=255),
    _case("weights of 0", (1, 6, 6, 16), 16, 3, pads=1, w=0),
    _case("weights of 127, bytes of 255", np.full((1, 6, 6, 200), 255, np.uint8), 70, 3, pads=1, w=127, zero=0),
    _case("weights of -127, bytes of 255", np.full((1, 6, 6, 200), 255, np.uint8), 70, 3, w=-127, zero=0),
    _case("weights of -128", np.full((1, 6, 6, 20), 255, np.uint8), 7, 3, w=-128, zero=3, **_FLOATS),
    _case("a result that saturates", (1, 6, 6, 16), 64, gain=1e-6),
    _case("a result far beyond int32", (1, 6, 6, 16), 64, gain=1e-12),
    _case("a result of one value", (1, 6, 6, 16), 64, gain=1e4),
]

CASES = [*POINTWISE, *DENSE, *STEM, *GROUPED, *DEPTHWISE, *WINOGRAD, *EPILOGUES, *VALUES]
