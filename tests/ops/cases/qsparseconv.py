"""Cases of QSparseConv."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxcompress.ops.blocks import to_blocks
from tests.ops.cases.case import Array, Case
from tests.ops.cases.qsparselinear import sparse_matrix

_rng = np.random.default_rng(8)
_inputs = (np.arange(256) - 128) / 16
_SILU = np.rint(_inputs / (1 + np.exp(-_inputs)) * 14 + 30).astype(np.uint8)  # of slope below 1


def _case(
    name: str,
    x: tuple[int, int, int, int] | Array,
    n: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    block: int = 4,
    density: float = 0.4,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    zero: int = 120,
    bias: bool = True,
    table: Array | None = None,
    output: str = "y",
    w: Array | None = None,
    **options: Any,
) -> Case:
    # body_steps: the body rounds the bias to steps of the sums, which moves ties of outputs that have no weights.
    data = x if isinstance(x, np.ndarray) else _rng.integers(0, 256, x).astype(np.uint8)
    c = data.shape[3]
    k = kernel[0] * kernel[1] * c
    dense = sparse_matrix(n, k, block, density, _rng) if w is None else w
    y_scale = np.float32(0.02 * 0.01 * np.sqrt(k * max(density, 0.1)) * 90)
    inputs: list[Any] = [data, np.float32(0.02), np.uint8(zero), *to_blocks(dense, block)]
    inputs.append(_rng.uniform(0.005, 0.015, n).astype(np.float32))
    inputs.append(_rng.normal(0, float(y_scale) * 30, n).astype(np.float32) if bias else None)
    inputs += [y_scale, np.uint8(110)] if output == "y" else [None, None]
    inputs.append(table)
    attributes = {"kernel_shape": kernel, "in_channels": c, "strides": strides, "pads": pads, "dilations": dilations}
    return Case("QSparseConv", name, inputs, attributes, (output,), **{"body_steps": 1, **options})


_ONE = (1, 1, 1, 1)
_LOOK_UP = {"reference_evaluator": "its Gather does not take as many indices"}

CASES = [
    *(_case(f"3x3, blocks of {b}", (1, 12, 13, 32), 50, pads=_ONE, block=b) for b in (1, 4, 16)),
    *(_case(f"3x3 of odd channels, blocks of {b}", (2, 9, 8, 13), 37, pads=_ONE, block=b) for b in (1, 4, 16)),
    *(_case(f"1x1, blocks of {b}", (1, 8, 9, 30), 64, (1, 1), block=b) for b in (1, 4, 16)),
    _case("1x1 strided", (2, 9, 10, 24), 32, (1, 1), strides=(2, 2)),
    _case("1x1 padded", (1, 4, 4, 16), 16, (1, 1), pads=(1, 0, 0, 2)),
    _case("1x1 of one and one channel", (1, 3, 5, 1), 1, (1, 1), density=1.0, zero=0),
    _case("3x3 strided", (1, 13, 16, 16), 48, strides=(2, 2), pads=(0, 0, 1, 1)),
    _case("3x3 strided unevenly", (1, 14, 31, 8), 20, strides=(2, 3), pads=(1, 2, 1, 0)),
    _case("5x5 on a small image", (1, 3, 3, 16), 16, (5, 5), pads=(2, 2, 2, 2)),
    _case("1x7", (1, 9, 12, 16), 20, (1, 7), pads=(0, 3, 0, 3)),
    _case("7x1", (1, 9, 12, 20), 20, (7, 1), pads=(3, 0, 3, 0)),
    _case("dilated", (1, 15, 14, 12), 20, pads=(2, 2, 2, 2), dilations=(2, 2)),
    _case("dilated, strided", (1, 15, 17, 8), 9, (3, 2), pads=(0, 3, 2, 1), dilations=(2, 3), strides=(1, 2)),
    _case("dilated, strided, odd", (1, 15, 17, 7), 9, (3, 2), pads=(0, 3, 2, 1), dilations=(2, 3), strides=(1, 2)),
    _case("strided beyond the kernel", (1, 16, 17, 8), 16, (2, 2), strides=(3, 4)),
    _case("pads wider than the kernel", (1, 3, 2, 8), 8, (2, 2), pads=(3, 4, 5, 2)),
    _case("several strips", (2, 41, 60, 64), 32, pads=_ONE, density=0.1, table=_SILU, body_steps=3, skip=_LOOK_UP),
    _case("a whole window", (1, 7, 7, 40), 70, (7, 7), density=0.1),
    _case("all blocks", (1, 9, 9, 16), 16, density=1.0, pads=_ONE),
    _case("no blocks", (1, 9, 9, 16), 16, density=0.0, pads=_ONE),
    _case("no bias", (1, 9, 9, 16), 16, bias=False),
    _case("a table and a tail", (1, 9, 10, 32), 83, table=_SILU, body_steps=3, skip=_LOOK_UP),
    _case("floats", (1, 9, 10, 32), 50, pads=_ONE, output="y_float"),
    _case("floats of odd channels", (1, 9, 10, 31), 50, pads=_ONE, output="y_float"),
    _case("floats 1x1", (1, 9, 10, 31), 50, (1, 1), output="y_float"),
    _case("zero point 0", (1, 6, 6, 16), 16, pads=_ONE, zero=0),
    _case("zero point 255", (1, 6, 6, 16), 16, pads=_ONE, zero=255),
    _case("weights of 127, bytes of 255", np.full((1, 6, 6, 200), 255, np.uint8), 10, pads=_ONE, zero=0,
          w=np.full((10, 1800), 127, np.int8)),
    _case("weights of -128", np.full((1, 6, 6, 20), 255, np.uint8), 7, pads=_ONE, zero=3,
          w=np.full((7, 180), -128, np.int8), output="y_float"),
    _case("an empty batch", (0, 5, 5, 8), 8),
]  # fmt: skip
