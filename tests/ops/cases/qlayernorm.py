"""Cases of QLayerNorm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case
from tests.ops.cases.qlinear import scalar

_rng = np.random.default_rng(2)
F32 = np.float32
DYNAMIC = ("q", "row_scale", "row_zero_point")


def norm(c: int, q: tuple[Any, Any] | None = (0.04, 120), beta: bool = True) -> list[Array | None]:
    """gamma, beta, q_scale and q_zero_point of c columns."""
    scale, zero = (None, None) if q is None else q
    return [
        _rng.uniform(0.5, 1.5, c).astype(F32),
        _rng.normal(0, 0.5, c).astype(F32) if beta else None,
        None if scale is None else np.asarray(scale, F32),
        None if zero is None else scalar(zero, np.uint8),
    ]


def _case(
    name: str,
    *shape: int,
    constants: list[Array | None] | None = None,
    outputs: tuple[str, ...] = ("y", "q"),
    residual: bool = True,
    mean: float = 0.3,
    dynamic: int = 0,
    epsilon: float = 1e-5,
    **options: Any,
) -> Case:
    x, other = (_rng.normal(mean, 1, shape).astype(F32) for _ in range(2))
    inputs = [x, other if residual else None, *(constants or norm(shape[-1]))]
    attributes = {"epsilon": epsilon, "dynamic": dynamic}
    return Case("QLayerNorm", name, inputs, attributes, outputs, **{"share": 0.02, "tolerance": 2e-5, **options})


CASES = [
    *(_case(f"{c} columns", 5, c) for c in (1, 2, 7, 8, 16, 17, 63, 64, 65, 100, 384)),
    *(_case(f"{c} columns, dynamic", 5, c, constants=norm(c, None), dynamic=1, outputs=DYNAMIC) for c in (1, 40, 131)),
    _case("no residual", 2, 3, 40, residual=False),
    _case("no residual, with the sum", 2, 3, 40, residual=False, outputs=("y", "sum")),
    _case("all", 9, 70, outputs=("y", "q", "sum")),
    _case("y", 9, 70, outputs=("y",), constants=norm(70, None)),
    _case("q", 9, 70, outputs=("q",)),
    _case("sum and q", 9, 70, outputs=("q", "sum")),
    _case("dynamic, all", 9, 70, dynamic=1, outputs=("y", *DYNAMIC, "sum"), constants=norm(70, None)),
    _case("smoothed", 9, 70, dynamic=1, outputs=DYNAMIC, constants=norm(70, (np.linspace(0.5, 2, 70), None))),
    _case("a scale of each column", 9, 70, constants=norm(70, (np.linspace(0.02, 0.1, 70), 130))),
    _case("no zero point", 9, 70, constants=norm(70, (0.1, None))),
    _case("no beta", 9, 70, constants=norm(70, beta=False)),
    _case("a large epsilon", 9, 70, epsilon=1.0),
    _case("a large mean", 9, 70, mean=1000.0, tolerance=2e-3, share=0.1),
    _case("many rows", 700, 24),
    _case("one dimension", 40),
    _case("no rows", 0, 40),
]
