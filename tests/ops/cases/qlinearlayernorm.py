"""Cases of QLinearLayerNorm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case
from tests.ops.cases.qlayernorm import DYNAMIC, norm
from tests.ops.cases.qlinear import STATIC, activations, scalar, weights

_rng = np.random.default_rng(3)
F32 = np.float32


def _case(
    name: str,
    x: list[Array | None],
    w: list[Array | None],
    constants: list[Array | None] | None = None,
    outputs: tuple[str, ...] = ("y", "q"),
    dynamic: int = 0,
    **options: Any,
) -> Case:
    assert x[0] is not None and w[0] is not None
    n = w[0].shape[0]
    residual = _rng.normal(0, 1, (*x[0].shape[:-1], n)).astype(F32)
    computed = x[1] is not None and x[1].ndim > 0
    return Case(
        "QLinearLayerNorm",
        name,
        [*x, *w, residual, *(constants or norm(n))],
        {"epsilon": 1e-12, "dynamic": dynamic},
        outputs,
        constants=() if computed else STATIC,
        **{"share": 0.02, "tolerance": 3e-5, **options},
    )


CASES = [
    *(
        _case(f"{m}x{k}x{n}", activations(m, k), weights(n, k))
        for m, k, n in [(1, 4, 16), (2, 3, 65), (5, 33, 47), (7, 31, 130), (130, 67, 129)]
    ),
    _case("more rows than a block", activations(300, 8), weights(700, 8)),
    _case("more rows than a block, with the sum", activations(300, 8), weights(700, 8), outputs=("y", "sum")),
    _case("no bias", activations(5, 32), weights(48, 32, bias=False)),
    _case("rows", activations(2, 5, 33, dynamic=True), weights(50, 33)),
    _case("floats", [_rng.normal(0, 1, (5, 32)).astype(F32), scalar(0.02), scalar(128, np.uint8)], weights(48, 32)),
    _case("all, dynamic", activations(9, 32), weights(70, 32), norm(70, None), ("y", *DYNAMIC, "sum"), 1),
    _case("dynamic", activations(9, 32), weights(70, 32), norm(70, None), DYNAMIC, 1),
    _case("y", activations(9, 32), weights(70, 32), norm(70, None), ("y",)),
    _case("q and sum", activations(9, 32), weights(70, 32), outputs=("q", "sum")),
    _case("no rows", activations(0, 32), weights(70, 32)),
]
