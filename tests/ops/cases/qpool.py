"""Cases of QPool."""

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(21)
# Neighbours are at most a step apart, and so stay within the tolerance.
_table = (np.abs(np.arange(256) - 100) + 20).astype(np.uint8)
_UNSIGNED = {"reference_evaluator": "it does not pool unsigned bytes"}
_EMPTY = {"reference_evaluator": "it does not pool empty images", "body": "nor does ONNX Runtime"}


def _bytes(*shape: int) -> Array:
    return _rng.integers(0, 256, shape).astype(np.uint8)


def _case(name: str, mode: str, x: Array, kernel: tuple[int, int] = (1, 1), table: Array | None = None,
          parameters: tuple[float, int, float, int] = (0.02, 77, 0.013, 31), skip: dict[str, str] | None = None,
          **attributes: Any) -> Case:  # fmt: skip
    x_scale, x_zero, y_scale, y_zero = parameters
    if mode == "max":
        y_scale, y_zero = x_scale, x_zero
        skip = {**_UNSIGNED, **(skip or {})}
    inputs = [x, np.float32(x_scale), np.uint8(x_zero), np.float32(y_scale), np.uint8(y_zero), table]
    if mode != "global_average":
        attributes["kernel_shape"] = kernel
    exact: dict[str, Any] = {"steps": 0, "share": 0} if mode == "max" else {"body_steps": 1}
    return Case("QPool", name, [None if v is None else np.asarray(v) for v in inputs], {"mode": mode, **attributes},
                skip=skip or {}, **exact)  # fmt: skip


CASES = [
    *[
        _case(
            f"max {k}x{k}, stride {s}, {c} channels",
            "max",
            _bytes(2, 13, 11, c),
            (k, k),
            strides=(s, s),
            pads=(k // 2,) * 4,
            table=_table if c == 7 else None,
        )
        for k, s, c in [(2, 2, 64), (3, 2, 64), (3, 1, 7), (5, 1, 192), (9, 1, 30), (3, 3, 1), (1, 2, 70)]
    ],
    _case("max of nothing but zeros", "max", np.zeros((1, 6, 6, 5), np.uint8), (3, 3), pads=(1, 1, 1, 1)),
    _case("max 13x13, larger than the image", "max", _bytes(1, 7, 7, 20), (13, 13), pads=(6, 6, 6, 6)),
    _case("max, uneven", "max", _bytes(1, 9, 14, 33), (2, 3), strides=(2, 1), pads=(0, 1, 1, 2)),
    _case("max, ceil", "max", _bytes(1, 8, 9, 16), (3, 3), strides=(2, 2), ceil_mode=1),
    _case(
        "max, ceil, last window dropped",
        "max",
        _bytes(1, 4, 5, 16),
        (2, 2),
        strides=(3, 3),
        pads=(1, 1, 1, 1),
        ceil_mode=1,
    ),
    _case("max, many rows", "max", _bytes(2, 60, 60, 32), (3, 3), pads=(1, 1, 1, 1)),
    _case("max, empty", "max", _bytes(0, 5, 5, 3), (3, 3), skip=_EMPTY),
    *[
        _case(
            f"average {k}x{k}, stride {s}, {c} channels, padding counts: {include}",
            "average",
            _bytes(2, 9, 11, c),
            (k, k),
            strides=(s, s),
            pads=(k // 2,) * 4,
            count_include_pad=include,
            table=_table if c == 7 else None,
        )
        for k, s, c in [(2, 2, 64), (3, 1, 7), (3, 2, 20), (5, 1, 1)]
        for include in (0, 1)
    ],
    _case("average, uneven", "average", _bytes(1, 6, 40, 30), (3, 2), strides=(3, 2)),
    _case("average, ceil", "average", _bytes(1, 8, 9, 16), (3, 3), strides=(2, 2), ceil_mode=1),
    _case(
        "average of a whole image, saturating",
        "average",
        np.full((1, 20, 20, 9), 255, np.uint8),
        (20, 20),
        parameters=(1.0, 0, 0.5, 0),
    ),
    _case(
        "average, zero points 255",
        "average",
        _bytes(1, 5, 5, 6),
        (3, 3),
        pads=(1, 1, 1, 1),
        parameters=(0.1, 255, 0.1, 255),
    ),
    _case("average, empty", "average", _bytes(0, 5, 5, 3), (3, 3), skip=_EMPTY),
    *[
        _case(f"global average, {h}x{w}x{c}", "global_average", _bytes(2, h, w, c), table=_table if c == 40 else None)
        for h, w, c in [
            (7, 7, 96),
            (1, 1, 5),
            (20, 20, 384),
            (13, 40, 40),
            (3, 5, 1),
            (9, 9, 100),
            (2, 2, 1030),
            (70, 30, 24),
        ]
    ],
    _case(
        "global average of the greatest",
        "global_average",
        np.full((1, 40, 40, 64), 255, np.uint8),
        parameters=(0.1, 0, 0.1, 0),
    ),
    _case("global average, empty", "global_average", _bytes(0, 5, 5, 3)),
]
