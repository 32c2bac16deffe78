"""Cases of QSparseLinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxcompress.ops.blocks import to_blocks
from tests.ops.cases.case import Array, Case
from tests.ops.cases.qlinear import F32, STATIC, activations, scalar

_rng = np.random.default_rng(7)


def sparse_matrix(n: int, k: int, block: int, density: float, rng: np.random.Generator = _rng) -> Array:
    """int8 [n, k] of which about `density` of the blocks are there."""
    w = rng.integers(-127, 128, (n, k)).astype(np.int8)
    kept = rng.random((-(-n // block), -(-k // 4))) < density
    return w * np.kron(kept, np.ones((block, 4), np.int8))[:n, :k]


def _case(
    name: str,
    x: list[Array | None],
    n: int,
    *,
    block: int = 4,
    density: float = 0.4,
    w: Array | None = None,
    bias: bool = True,
    scale_of_each: bool = True,
    residual: bool = False,
    y: tuple[Any, Any] | None = (0.03, 100),
    table: bool = False,
    activation: str = "",
    dynamic: int = 0,
    **options: Any,
) -> Case:
    assert x[0] is not None
    k = x[0].shape[-1]
    dense = sparse_matrix(n, k, block, density) if w is None else w
    level = 0.006 / np.sqrt(k * max(density, 0.1))
    scale = np.asarray(_rng.uniform(0.5, 1.5, n if scale_of_each else ()) * level, F32)
    inputs: list[Array | None] = [*x, *to_blocks(dense, block), scale]
    inputs.append(_rng.normal(0, 0.5, n).astype(F32) if bias else None)
    inputs.append(_rng.normal(0, 1, (*x[0].shape[:-1], n)).astype(F32) if residual else None)
    inputs += [None, None] if y is None else [np.asarray(y[0], F32), None if y[1] is None else scalar(y[1], np.uint8)]
    inputs.append(_rng.permutation(256).astype(np.uint8) if table else None)
    outputs = ("y", "y_row_scale", "y_row_zero_point") if dynamic else ("y",) if y is not None else ("y_float",)
    return Case(
        "QSparseLinear",
        name,
        inputs,
        attributes={"in_features": k, "activation": activation, "dynamic": dynamic},
        outputs=outputs,
        constants=() if x[1] is not None and x[1].ndim else STATIC,
        **{"share": 0.03, "tolerance": 2e-5, **options},
    )


def _floats(*shape: int) -> list[Array | None]:
    x = _rng.normal(0, 1, shape).astype(F32)
    x.flat[:4] = np.array([np.nan, np.inf, -np.inf, 1e30], F32)
    return [x, scalar(0.02), scalar(128, np.uint8)]


def _saturated(block: int) -> Case:
    w = np.repeat(np.array([[127], [-127], [-128], [0]], np.int8), 70, 1)
    x: list[Array | None] = [np.full((3, 70), 255, np.uint8), scalar(0.5), scalar(0, np.uint8)]
    return _case(f"saturating, 1 of {block}", x, 4, block=block, w=w, steps=0, share=0)


_SHAPES = [(1, 1, 1), (1, 4, 64), (3, 7, 65), (6, 64, 16), (17, 31, 130), (33, 128, 101), (64, 20, 64), (130, 66, 129)]
_BLOCKS = (1, 4, 16)
_ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "hardswish")

CASES = [
    *(_case(f"{m}x{k}x{n}, blocks of {b}", activations(m, k), n, block=b) for m, k, n in _SHAPES for b in _BLOCKS),
    *(_case(f"{m}x{k}x{n}, blocks of {b}, to floats", activations(m, k), n, block=b, y=None, residual=True)
      for m, k, n in _SHAPES[3:6] for b in _BLOCKS),
    *(_case(f"{m} rows against blocks of 16", activations(m, 45), 50, block=16) for m in (2, 4, 7, 8, 15, 16)),
    *(_case(f"{a} to bytes", activations(20, 32), 70, activation=a) for a in _ACTIVATIONS),
    *(_case(f"{a} to fine bytes", activations(20, 32), 70, activation=a, y=(1e-3, 40), share=0.06)
      for a in _ACTIVATIONS),
    *(_case(f"{a} to floats", activations(9, 32), 70, activation=a, y=None) for a in _ACTIVATIONS),
    *(_case(f"{a}, few rows", activations(3, 32), 70, activation=a, block=16) for a in _ACTIVATIONS),
    *(_case(f"{a} to bytes of {s}", activations(70, 32), 70, activation=a, y=(s, z), share=0.06)
      for a in _ACTIVATIONS[1:] for s, z in ((0.1, 0), (0.1, 255), (0.012, 20))),
    *(_case(f"{m} rows against blocks of 4", activations(m, 75), 50) for m in (1, 2, 3)),
    _case("gelu of rows beyond 16 bits", activations(20, 32), 70, activation="gelu", y=(1e-5, 40), share=0.06),
    _case("all blocks", activations(20, 32), 70, density=1.0),
    _case("no blocks", activations(20, 32), 70, density=0.0),
    _case("no blocks of 16", activations(3, 32), 70, density=0.0, block=16),
    _case("no bias", activations(4, 32), 48, bias=False),
    _case("one weight scale", activations(4, 32), 48, scale_of_each=False),
    _case("zero point 0", activations(4, 32, zero=0), 48, y=(0.03, 0)),
    _case("zero point 255", activations(40, 32, zero=255), 48, y=(0.03, 255)),
    _case("no zero point of y", activations(4, 32), 48, y=(0.03, None)),
    _case("residual", activations(7, 32), 50, residual=True),
    _case("gelu, residual, few rows", activations(7, 32), 50, residual=True, activation="gelu", block=16),
    _case("table", activations(37, 32), 70, table=True, steps=255),
    _case("relu, residual, table", activations(7, 32), 50, residual=True, table=True, activation="relu", steps=255),
    _case("a scale of each column", activations(7, 32), 50, y=(np.linspace(0.01, 0.1, 50), 77)),
    _case("gelu, a scale of each column", activations(7, 32), 50, y=(np.linspace(0.02, 0.1, 50), 77),
          activation="gelu"),
    *(_case(f"rows, blocks of {b}", activations(2, 5, 33, dynamic=True), 50, block=b) for b in _BLOCKS),
    _case("rows to floats", activations(70, 33, dynamic=True), 50, y=None, residual=True),
    _case("rows, gelu", activations(2, 5, 32, dynamic=True), 50, activation="gelu"),
    *(_case(f"rows to dynamic rows, blocks of {b}", activations(5, 32, dynamic=True), 50, y=None, dynamic=1, block=b,
            share=0.06) for b in _BLOCKS),
    _case("dynamic rows, gelu, residual", activations(90, 32), 50, y=None, dynamic=1, activation="gelu", residual=True,
          share=0.06),
    _case("dynamic rows, smoothed", activations(9, 32), 50, y=(np.linspace(0.5, 2, 50), None), dynamic=1, share=0.06),
    _case("many columns and threads", activations(30, 64), 1100, density=0.1),
    _case("many columns of few rows", activations(2, 64), 1100, density=0.1, block=16, residual=True),
    _case("many rows", activations(400, 12), 80),
    _case("floats", _floats(5, 35), 50, skip={"reference_evaluator": "casts infinity to int32"}),
    _case("one dimension", activations(32), 50),
    _case("no rows", activations(0, 32), 50),
    *(_saturated(block) for block in _BLOCKS),
    _case("weights of zero", activations(5, 32), 20, w=np.zeros((20, 32), np.int8)),
]  # fmt: skip
