"""Cases of QLinear4."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxcompress.ops.qlinear4 import pack4
from tests.ops.cases.case import Array, Case
from tests.ops.cases.qlinear import F32, STATIC, activations, scalar

_rng = np.random.default_rng(9)


def _case(
    name: str,
    x: list[Array | None],
    n: int,
    *,
    block: int = 32,
    w: Array | None = None,
    bias: bool = True,
    residual: bool = False,
    y: tuple[Any, Any] | None = (0.03, 100),
    activation: str = "",
    **options: Any,
) -> Case:
    assert x[0] is not None
    k = x[0].shape[-1]
    halves = _rng.integers(0, 16, (n, k)).astype(np.uint8) if w is None else w
    inputs: list[Array | None] = [*x, pack4(halves)]
    inputs.append((_rng.uniform(0.05, 0.15, (n, k // block)) / np.sqrt(k)).astype(F32))
    inputs.append(_rng.normal(0, 0.5, n).astype(F32) if bias else None)
    inputs.append(_rng.normal(0, 1, (*x[0].shape[:-1], n)).astype(F32) if residual else None)
    inputs += [None, None] if y is None else [np.asarray(y[0], F32), None if y[1] is None else scalar(y[1], np.uint8)]
    return Case(
        "QLinear4",
        name,
        inputs,
        attributes={"block_size": block, "activation": activation},
        outputs=("y",) if y is not None else ("y_float",),
        constants=() if x[1] is not None and x[1].ndim else STATIC,
        device_tolerance=1e-3,  # scales are halves there
        **{"share": 0.03, "tolerance": 2e-5, **options},
    )


def _floats(*shape: int) -> list[Array | None]:
    x = _rng.normal(0, 1, shape).astype(F32)
    x.flat[:4] = np.array([np.nan, np.inf, -np.inf, 1e30], F32)
    return [x, scalar(0.02), scalar(128, np.uint8)]


_SHAPES = [(1, 32, 1), (1, 64, 64), (2, 96, 65), (3, 128, 17), (4, 160, 130), (7, 64, 48), (100, 64, 200)]
_ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "hardswish")
_FULL = np.full((3, 64), 255, np.uint8)

CASES = [
    *(_case(f"{m}x{k}x{n}", activations(m, k), n) for m, k, n in _SHAPES),
    *(_case(f"{m}x{k}x{n} to floats", activations(m, k), n, y=None, residual=True) for m, k, n in _SHAPES),
    *(_case(f"block of {b}", activations(5, 2 * b), 70, block=b) for b in (32, 36, 64, 100, 128)),
    *(_case(f"{a} to bytes", activations(9, 64), 70, activation=a) for a in _ACTIVATIONS),
    *(_case(f"{a} to floats", activations(9, 64), 70, activation=a, y=None) for a in _ACTIVATIONS),
    _case("gelu to fine bytes", activations(9, 64), 70, activation="gelu", y=(1e-3, 40), share=0.06),
    _case("no bias", activations(4, 64), 48, bias=False),
    _case("zero point 0", activations(4, 64, zero=0), 48, y=(0.03, 0)),
    _case("zero point 255", activations(4, 64, zero=255), 48, y=(0.03, 255)),
    _case("no zero point of y", activations(4, 64), 48, y=(0.03, None)),
    _case("residual", activations(7, 64), 48, residual=True),
    _case("gelu, residual", activations(7, 64), 50, residual=True, activation="gelu"),
    _case("a scale of each column", activations(7, 64), 50, y=(np.linspace(0.01, 0.1, 50), 77)),
    _case("rows", activations(2, 5, 64, dynamic=True), 50),
    _case("rows to floats, gelu", activations(5, 64, dynamic=True), 50, y=None, activation="gelu"),
    _case("rows, block of 36", activations(5, 72, dynamic=True), 50, block=36),
    _case("floats", _floats(5, 64), 50, skip={"reference_evaluator": "casts infinity to int32"}),
    _case("floats, block of 36", _floats(5, 72), 50, block=36, skip={"reference_evaluator": "casts infinity to int32"}),
    _case("one dimension", activations(64), 50),
    _case("no rows", activations(0, 64), 50),
    _case("many rows and columns", activations(210, 32), 300),
    _case("weights of -8, bytes of 255", [_FULL, scalar(0.5), scalar(0, np.uint8)], 20, w=np.zeros((20, 64), np.uint8)),
    _case("weights of 7, bytes of 255", [_FULL, scalar(0.5), scalar(0, np.uint8)], 20, y=None,
          w=np.full((20, 64), 15, np.uint8)),
    _case("weights of zero", activations(5, 64), 20, w=np.full((20, 64), 8, np.uint8)),
]  # fmt: skip
