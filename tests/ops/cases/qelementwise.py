"""Cases of QElementwise."""

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(20)
# Neighbours are at most a step apart, and so stay within the tolerance.
_table = (np.abs(np.arange(256) - 100) + 20).astype(np.uint8)
_F = np.float32


def _bytes(*shape: int) -> Array:
    return _rng.integers(0, 256, shape).astype(np.uint8)


def _floats(*shape: int) -> Array:
    return (_rng.standard_normal(shape) * 0.7).astype(_F)


def _case(
    name: str,
    a: Array,
    b: Array,
    zeros: tuple[int, int, int] = (120, 7, 99),
    scales: tuple[float, float, float] = (0.031, 0.017, 0.029),
    table: Array | None = None,
    **options: Any,
) -> Case:
    quantized = b.dtype == np.uint8
    inputs = [
        a,
        _F(scales[0]),
        np.uint8(zeros[0]),
        b,
        _F(scales[1]) if quantized else None,
        np.uint8(zeros[1]) if quantized else None,
        _F(scales[2]),
        np.uint8(zeros[2]),
        table,
    ]
    steps = {key: options.pop(key) for key in ("share", "steps", "body_steps", "skip") if key in options}
    return Case("QElementwise", name, [None if x is None else np.asarray(x) for x in inputs], options, **steps)


def _every_pair() -> tuple[Array, Array]:
    a, b = np.meshgrid(np.arange(256), np.arange(256))
    return a.astype(np.uint8), b.astype(np.uint8)


_not_finite = _floats(1, 3, 67)
_not_finite[0, 0, :6] = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40]
_channels = np.array([np.inf, -np.inf, np.nan, 1e38, 0, -0.5], _F).reshape(1, 1, 1, 6)

CASES = [
    *[
        _case(
            f"every pair of bytes, {operation}, zero points {zero}",
            *_every_pair(),
            (zero, 255 - zero, 128),
            operation=operation,
        )
        for operation in ("add", "sub", "mul")
        for zero in (0, 255)
    ],
    # Half of the sums are ties: the zero point must come after rounding.
    _case("ties", *_every_pair(), (3, 5, 7), (0.5, 0.5, 1.0), share=0, steps=0, body_steps=1),
    _case("equal parameters", *_every_pair(), (9, 9, 9), (0.1, 0.1, 0.1)),
    _case(
        "saturates",
        *_every_pair(),
        (0, 0, 0),
        (1.0, 1.0, 1e-30),
        operation="mul",
        skip={"body": "its conversion to integers overflows", "reference_evaluator": "as body"},
    ),
    _case("tiny inputs", *_every_pair(), (8, 9, 10), (1e-30, 1e-30, 1.0)),
    _case("one value", _bytes(1), _bytes(1)),
    _case("a tail and a table", _bytes(2, 5, 67), _bytes(2, 5, 67), table=_table),
    _case(
        "a table, product", _bytes(3, 100), _bytes(3, 100), table=_table, operation="mul", scales=(0.03, 0.011, 0.041)
    ),
    _case("several pieces", _bytes(2, 100, 100, 8), _bytes(2, 100, 100, 8)),
    _case("empty", _bytes(0, 4, 4, 8), _bytes(0, 4, 4, 8)),
    _case("empty, per channel", _bytes(0, 4, 4, 8), _bytes(0, 1, 1, 8)),
    *[
        _case(
            f"floats, {operation}",
            _bytes(2, 3, 35),
            _floats(2, 3, 35),
            operation=operation,
            table=_table,
            scales=(0.03, 1.0, 0.02),
        )
        for operation in ("add", "sub", "mul")
    ],
    _case(
        "floats that are not finite",
        _bytes(1, 3, 67),
        _not_finite,
        body_steps=255,
        skip={"body": "its quantization of not-a-number is its own", "reference_evaluator": "as body"},
    ),
    *[
        _case(
            f"bytes per channel, {operation}, {c} channels", _bytes(2, 3, 5, c), _bytes(2, 1, 1, c), operation=operation
        )
        for operation in ("add", "sub", "mul")
        for c in (1, 6, 16, 96, 133)
    ],
    *[
        _case(
            f"floats per channel, {operation}",
            _bytes(2, 7, 9, 24),
            _floats(2, 1, 1, 24),
            operation=operation,
            table=_table if operation == "mul" else None,
            scales=(0.03, 1.0, 0.02),
        )
        for operation in ("add", "sub", "mul")
    ],
    _case(
        "floats per channel, not finite",
        _bytes(1, 5, 5, 6) // 2,
        np.broadcast_to(_channels, (1, 1, 1, 6)).copy(),
        (200, 0, 17),
        operation="mul",
        skip={"body": "its quantization of not-a-number is its own", "reference_evaluator": "as body"},
    ),
    _case("one row of channels for all images", _bytes(3, 4, 4, 40), _bytes(1, 1, 1, 40), operation="mul"),
    _case("many channels, several pieces", _bytes(1, 40, 40, 72), _floats(1, 1, 1, 72), operation="mul"),
    *[
        _case(
            f"upsampled by {u}, {operation}",
            _bytes(2, 3 * u, 5 * u, 20),
            _bytes(2, 3, 5, 20),
            operation=operation,
            upsample=u,
            table=_table if u == 2 else None,
        )
        for u in (2, 3, 4)
        for operation in ("add", "mul")
    ],
    _case("upsampled, several pieces", _bytes(1, 96, 96, 24), _bytes(1, 48, 48, 24), upsample=2),
    _case("upsampled, empty", _bytes(0, 4, 4, 3), _bytes(0, 2, 2, 3), upsample=2),
]
