"""Cases of QLinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(1)
STATIC = ("x_scale", "x_zero_point")
F32 = np.float32


def scalar(value: float, dtype: Any = F32) -> Array:
    """One value, of shape []."""
    return np.array(value, dtype)


def activations(*shape: int, dynamic: bool = False, zero: int = 119) -> list[Array | None]:
    """Bytes x with their scale and zero point; those of each row where `dynamic`."""
    x = _rng.integers(0, 256, shape).astype(np.uint8)
    rows = (*shape[:-1], 1)
    if dynamic:
        return [x, _rng.uniform(0.005, 0.05, rows).astype(F32), _rng.integers(0, 256, rows).astype(np.uint8)]
    return [x, scalar(0.021), scalar(zero, np.uint8)]


def weights(n: int, k: int, bias: bool = True, scale_of_each: bool = True) -> list[Array | None]:
    """w, w_scale and bias, such that results are of magnitude 1 or so."""
    w = _rng.integers(-127, 128, (n, k)).astype(np.int8)
    level = 0.6 / np.sqrt(k)
    scale = _rng.uniform(0.5, 1.5, n if scale_of_each else ()) * level * 0.01
    return [w, np.asarray(scale, F32), _rng.normal(0, 0.5, n).astype(F32) if bias else None]


def _case(
    name: str,
    x: list[Array | None],
    w: list[Array | None],
    *,
    residual: bool = False,
    y: tuple[Any, Any] | None = (0.03, 100),
    table: bool = False,
    activation: str = "",
    dynamic: int = 0,
    **options: Any,
) -> Case:
    assert x[0] is not None and w[0] is not None
    shape = (*x[0].shape[:-1], w[0].shape[0])
    inputs = [*x, *w, _rng.normal(0, 1, shape).astype(F32) if residual else None, None, None, None]
    if y is not None:
        inputs[7] = np.asarray(y[0], F32)
        inputs[8] = None if y[1] is None else scalar(y[1], np.uint8)
    if table:
        inputs[9] = _rng.permutation(256).astype(np.uint8)
    outputs = ("y", "y_row_scale", "y_row_zero_point") if dynamic else ("y",) if y is not None else ("y_float",)
    computed = x[1] is not None and x[1].ndim > 0
    return Case(
        "QLinear",
        name,
        inputs,
        attributes={"activation": activation, "dynamic": dynamic},
        outputs=outputs,
        constants=() if computed else STATIC,
        **{"share": 0.03, "tolerance": 2e-5, **options},
    )


def _floats(*shape: int) -> list[Array | None]:
    x = _rng.normal(0, 1, shape).astype(F32)
    x.flat[:4] = np.array([np.nan, np.inf, -np.inf, 1e30], F32)[: x.size]
    return [x, scalar(0.02), scalar(128, np.uint8)]


def _saturated() -> Case:
    w: list[Array | None] = [np.repeat(np.array([[127], [-127], [-128], [0]], np.int8), 70, 1), scalar(1e-3), None]
    return _case("saturating", [np.full((3, 70), 255, np.uint8), scalar(0.5), scalar(0, np.uint8)], w, steps=0, share=0)


_SHAPES = [(1, 1, 1), (1, 4, 64), (2, 3, 65), (5, 33, 47), (6, 64, 16), (7, 31, 130), (16, 128, 100), (130, 67, 129)]
_OF_POLYNOMIAL = 1e-4  # of the scales of rows: that of GELU before them
_INFINITE = {"reference_evaluator": "its QuantizeLinear gives infinities any value"}
_ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "hardswish")

CASES = [
    *(_case(f"{m}x{k}x{n}", activations(m, k), weights(n, k)) for m, k, n in _SHAPES),
    *(_case(f"{m}x{k}x{n} to floats", activations(m, k), weights(n, k), y=None) for m, k, n in _SHAPES),
    *(_case(f"{a} to bytes", activations(9, 32), weights(70, 32), activation=a) for a in _ACTIVATIONS),
    *(
        _case(f"{a} to fine bytes", activations(9, 32), weights(70, 32), activation=a, y=(s, 40), share=0.06)
        for a in _ACTIVATIONS
        for s in (0.005, 1e-4)
    ),
    *(
        _case(f"{a} to floats", activations(9, 32), weights(70, 32), activation=a, y=None, residual=True)
        for a in _ACTIVATIONS
    ),
    *(
        _case(
            f"{a} to dynamic rows",
            activations(9, 32),
            weights(70, 32),
            activation=a,
            y=None,
            dynamic=1,
            share=0.06,
            tolerance=_OF_POLYNOMIAL,
        )
        for a in ("", *_ACTIVATIONS)
    ),
    _case("no bias", activations(4, 32), weights(48, 32, bias=False)),
    _case("one weight scale", activations(4, 32), weights(48, 32, scale_of_each=False)),
    _case("zero point 0", activations(4, 32, zero=0), weights(48, 32), y=(0.03, 0)),
    _case("zero point 255", activations(4, 32, zero=255), weights(48, 32), y=(0.03, 255)),
    _case("no zero point of y", activations(4, 32), weights(48, 32), y=(0.03, None)),
    _case("residual", activations(7, 32), weights(48, 32), residual=True),
    _case("relu, residual", activations(7, 32), weights(48, 32), residual=True, activation="relu"),
    _case("gelu, residual", activations(7, 32), weights(50, 32), residual=True, activation="gelu"),
    _case("table", activations(7, 32), weights(50, 32), table=True, steps=255),
    _case("gelu, residual, table", activations(7, 32), weights(50, 32), residual=True, table=True, steps=255),
    _case("a scale of each column", activations(7, 32), weights(50, 32), y=(np.linspace(0.01, 0.1, 50), 77)),
    _case(
        "gelu, a scale of each column",
        activations(7, 32),
        weights(50, 32),
        y=(np.linspace(0.02, 0.1, 50), 77),
        activation="gelu",
    ),
    _case("a scale of each column, no zero point", activations(7, 32), weights(50, 32), y=(np.full(50, 0.1), None)),
    _case("rows", activations(2, 5, 32, dynamic=True), weights(50, 32)),
    _case("rows to floats", activations(2, 5, 33, dynamic=True), weights(50, 33), y=None, residual=True),
    _case("rows, gelu", activations(2, 5, 32, dynamic=True), weights(50, 32), activation="gelu"),
    _case(
        "rows, gelu, residual, table",
        activations(9, 32, dynamic=True),
        weights(50, 32),
        activation="gelu",
        residual=True,
        table=True,
        steps=255,
    ),
    _case("rows to dynamic rows", activations(2, 5, 32, dynamic=True), weights(50, 32), y=None, dynamic=1, share=0.06),
    _case(
        "dynamic rows, smoothed",
        activations(9, 32),
        weights(50, 32),
        y=(np.linspace(0.5, 2, 50), None),
        dynamic=1,
        share=0.06,
    ),
    _case(
        "many dynamic rows",
        activations(300, 8),
        weights(700, 8),
        y=None,
        dynamic=1,
        activation="gelu",
        share=0.06,
        tolerance=_OF_POLYNOMIAL,
    ),
    _case(
        "rows of zeros to dynamic rows",
        [np.full((3, 8), 9, np.uint8), scalar(0.1), scalar(9, np.uint8)],
        weights(20, 8, bias=False),
        y=None,
        dynamic=1,
    ),
    _case("many rows", activations(400, 12), weights(80, 12)),
    _case("floats", _floats(5, 32), weights(50, 32), skip=_INFINITE),
    _case("floats, K of 35", _floats(5, 35), weights(50, 35), y=None, skip=_INFINITE),
    _case("one dimension", activations(32), weights(50, 32)),
    _case("no rows", activations(0, 32), weights(50, 32)),
    _case(
        "no rows to dynamic rows",
        activations(2, 0, 32),
        weights(50, 32),
        y=None,
        dynamic=1,
        skip={"body": "the reductions of stock operators refuse", "reference_evaluator": "the same", "torch": "same"},
    ),
    _saturated(),
    _case("weights of zero", activations(5, 32), [np.zeros((20, 32), np.int8), scalar(1.0), None], steps=0, share=0),
]
