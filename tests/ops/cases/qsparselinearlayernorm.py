"""Cases of QSparseLinearLayerNorm."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxcompress.ops.blocks import to_blocks
from tests.ops.cases.case import Array, Case
from tests.ops.cases.qlayernorm import DYNAMIC, norm
from tests.ops.cases.qlinear import F32, STATIC, activations, scalar
from tests.ops.cases.qsparselinear import sparse_matrix

_rng = np.random.default_rng(23)


def _case(
    name: str,
    x: list[Array | None],
    n: int,
    *,
    block: int = 4,
    density: float = 0.4,
    bias: bool = True,
    constants: list[Array | None] | None = None,
    outputs: tuple[str, ...] = ("y", "q"),
    dynamic: int = 0,
    **options: Any,
) -> Case:
    assert x[0] is not None
    k = x[0].shape[-1]
    scale = np.asarray(_rng.uniform(0.5, 1.5, n) * 0.006 / np.sqrt(k * max(density, 0.1)), F32)
    residual = _rng.normal(0, 1, (*x[0].shape[:-1], n)).astype(F32)
    inputs: list[Array | None] = [*x, *to_blocks(sparse_matrix(n, k, block, density, _rng), block), scale]
    inputs += [_rng.normal(0, 0.5, n).astype(F32) if bias else None, residual, *(constants or norm(n))]
    computed = x[1] is not None and x[1].ndim > 0
    return Case(
        "QSparseLinearLayerNorm",
        name,
        inputs,
        {"in_features": k, "epsilon": 1e-12, "dynamic": dynamic},
        outputs,
        constants=() if computed else STATIC,
        **{"share": 0.03, "tolerance": 3e-5, **options},
    )


CASES = [
    *(
        _case(f"{m}x{k}x{n}, blocks of {block}", activations(m, k), n, block=block)
        for m, k, n in [(1, 4, 16), (3, 7, 65), (17, 31, 130), (130, 67, 129)]
        for block in (1, 4, 16)
    ),
    _case("few rows of many columns", activations(20, 16), 600),
    _case("many rows of many columns", activations(200, 16), 600),
    _case("many rows of many columns, q alone", activations(300, 16), 600, outputs=("q",)),
    _case("many rows of many columns, with the sum", activations(300, 16), 600, outputs=("y", "q", "sum")),
    _case("no blocks", activations(20, 32), 70, density=0.0),
    _case("all blocks", activations(20, 32), 70, density=1.0),
    _case("no bias", activations(5, 32), 48, bias=False),
    _case("rows", activations(2, 5, 33, dynamic=True), 50),
    _case("many rows with parameters", activations(150, 33, dynamic=True), 50, outputs=("q",)),
    _case("floats", [_rng.normal(0, 1, (5, 32)).astype(F32), scalar(0.02), scalar(128, np.uint8)], 48),
    _case("all, dynamic", activations(9, 32), 70, constants=norm(70, None), outputs=("y", *DYNAMIC, "sum"), dynamic=1),
    _case("dynamic", activations(9, 32), 70, constants=norm(70, None), outputs=DYNAMIC, dynamic=1),
    _case("y", activations(9, 32), 70, constants=norm(70, None), outputs=("y",)),
    _case("no rows", activations(0, 32), 70),
]
