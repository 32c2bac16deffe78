"""Cases of QConvTranspose."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(0)
# Of slope below 1, so that a step before it is at most one after it.
_TABLE = np.rint(255 / (1 + np.exp(-(np.arange(256) - 128) / 80))).astype(np.uint8)


def _case(
    name: str,
    x: tuple[int, int, int, int] | Array,
    m: int,
    kernel: tuple[int, int] = (2, 2),
    *,
    strides: tuple[int, int] = (2, 2),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    output_padding: tuple[int, int] = (0, 0),
    zero: int = 120,
    y_zero: int = 128,
    bias: bool = True,
    per_channel: bool = True,
    table: Array | None = None,
    output: str = "y",
    layout: str = "NHWC",
    w: int | None = None,
    gain: float = 1.0,
    **limits: Any,
) -> Case:
    """x: an array, or the shape NHWC of random bytes. w: the value of all weights. gain: of the output's scale."""
    data = x if isinstance(x, np.ndarray) else _rng.integers(0, 256, x).astype(np.uint8)
    shape = (m, *kernel, data.shape[3])
    weights = _rng.integers(-127, 128, shape).astype(np.int8) if w is None else np.full(shape, w, np.int8)
    w_scale = _rng.uniform(0.5, 1.5, m if per_channel else ()).astype(np.float32) * np.float32(0.01)
    x_scale = np.float32(0.02)
    y_scale = np.float32(gain * x_scale * 0.01 * np.sqrt(data.shape[3]) * 90)
    inputs: list[Array | None] = [data, np.array(x_scale), np.array(zero, np.uint8), weights, np.array(w_scale)]
    inputs.append(_rng.normal(0, float(y_scale) * 30, m).astype(np.float32) if bias else None)
    if output == "y":
        inputs += [np.array(y_scale), np.array(y_zero, np.uint8), table]
    attributes = {"strides": strides, "pads": pads, "output_padding": output_padding, "y_layout": layout}
    return Case("QConvTranspose", name, inputs, attributes, (output,), **limits)


_BEYOND: dict[str, Any] = {"skip": dict.fromkeys(("body", "reference_evaluator"), "QuantizeLinear leaves it open")}
_EMPTY: dict[str, Any] = {"skip": {"reference_evaluator": "its ConvTranspose refuses an empty batch"}}
_FLOATS: dict[str, Any] = {"output": "y_float"}

TILES = [
    _case("2x2", (1, 7, 9, 24), 24),
    _case("2x2 with a table", (1, 7, 9, 24), 24, table=_TABLE),
    _case("2x2 to one channel", (2, 7, 9, 24), 1, table=_TABLE),
    _case("2x2 to one float", (2, 7, 19, 24), 1, **_FLOATS),
    _case("2x2 to one float plane", (2, 7, 19, 24), 1, layout="NCHW", **_FLOATS),
    _case("2x2 to three channels", (1, 5, 6, 20), 3),
    _case("2x2 to five channels", (1, 5, 6, 20), 5),
    _case("2x2 to many channels", (1, 5, 6, 67), 71),
    _case("2x2 to floats", (1, 5, 6, 67), 71, **_FLOATS),
    _case("2x2 to float planes", (2, 5, 6, 32), 21, layout="NCHW", **_FLOATS),
    _case("2x2 to a few float planes", (2, 5, 6, 32), 3, layout="NCHW", **_FLOATS),
    _case("one channel to one", (1, 3, 4, 1), 1),
    _case("3x1", (1, 5, 6, 13), 8, (3, 1), strides=(3, 1)),
    _case("1x4", (1, 5, 6, 13), 3, (1, 4), strides=(1, 4)),
    _case("1x1", (2, 5, 6, 13), 33, (1, 1), strides=(1, 1)),
    _case("one pixel", (1, 1, 1, 8), 8),
    _case("several threads' lines", (2, 60, 61, 24), 24),
    _case("an empty batch", (0, 5, 6, 8), 8, **_EMPTY),
    _case("an empty batch of floats", (0, 5, 6, 8), 1, layout="NCHW", **_FLOATS, **_EMPTY),
]
GENERAL = [
    _case("windows that overlap", (1, 6, 7, 16), 16, (3, 3), strides=(2, 2)),
    _case("windows that overlap, padded", (2, 6, 7, 16), 24, (4, 4), pads=(1, 1, 1, 1), table=_TABLE),
    _case("output padding", (1, 6, 7, 16), 16, (3, 3), pads=(1, 1, 1, 1), output_padding=(1, 1)),
    _case("output padding of one side", (1, 6, 7, 10), 5, (3, 2), strides=(2, 3), output_padding=(0, 2)),
    _case("stride 1", (1, 6, 7, 9), 11, (3, 3), strides=(1, 1), pads=(1, 1, 1, 1)),
    _case("gaps between windows", (1, 4, 5, 12), 7, (2, 1), strides=(3, 4)),
    _case("tiles that are cut", (1, 6, 7, 12), 7, pads=(1, 0, 0, 1)),
    _case("uneven pads", (1, 6, 7, 12), 17, (5, 3), strides=(2, 1), pads=(3, 0, 1, 2)),
    _case("pads wider than a window", (1, 8, 9, 12), 4, pads=(5, 3, 4, 6)),
    _case("one channel, overlapping", (1, 6, 17, 24), 1, (4, 4), pads=(1, 1, 1, 1)),
    _case("floats, overlapping", (1, 6, 7, 24), 18, (3, 3), pads=(1, 1, 0, 0), **_FLOATS),
    _case("float planes, overlapping", (2, 6, 7, 24), 18, (3, 3), pads=(1, 1, 0, 0), layout="NCHW", **_FLOATS),
    _case("several threads, overlapping", (2, 30, 31, 16), 16, (4, 4), pads=(1, 1, 1, 1)),
    _case("an empty batch, overlapping", (0, 6, 7, 8), 8, (3, 3), **_EMPTY),
]
VALUES = [
    _case("zero point 0", (1, 5, 6, 16), 16, zero=0, y_zero=0),
    _case("zero point 255", (1, 5, 6, 16), 16, zero=255, y_zero=255),
    _case("zero point 255, overlapping", (1, 5, 6, 16), 16, (3, 3), zero=255, y_zero=255),
    _case("no bias", (1, 5, 6, 16), 16, bias=False),
    _case("no bias, floats", (1, 5, 6, 16), 2, bias=False, **_FLOATS),
    _case("one weight scale", (1, 5, 6, 16), 16, per_channel=False),
    _case("weights of 0", (1, 5, 6, 16), 16, w=0),
    _case("weights of 127, bytes of 255", np.full((1, 5, 6, 200), 255, np.uint8), 16, w=127, zero=0),
    _case("weights of -128, bytes of 255", np.full((1, 5, 6, 200), 255, np.uint8), 16, (3, 3), w=-128, zero=0),
    _case("a result that saturates", (1, 5, 6, 16), 16, gain=1e-6),
    _case("a result far beyond int32", (1, 5, 6, 16), 16, gain=1e-12, **_BEYOND),
    _case("a result far beyond int32, overlapping", (1, 5, 6, 16), 16, (3, 3), gain=1e-12, **_BEYOND),
    _case("a result of one value", (1, 5, 6, 16), 16, gain=1e4),
]

CASES = [*TILES, *GENERAL, *VALUES]
