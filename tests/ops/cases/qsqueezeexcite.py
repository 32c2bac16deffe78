"""Cases of QSqueezeExcite."""

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(24)
_F = np.float32


def _case(
    name: str,
    shape: tuple[int, int, int, int],
    hidden: int,
    zeros: tuple[int, int] = (101, 60),
    bias: bool = True,
    per_tensor: bool = False,
    table: bool = False,
    x: Array | None = None,
    weight: int | None = None,
    **attributes: Any,
) -> Case:
    c = shape[3]
    x = _rng.integers(0, 256, shape).astype(np.uint8) if x is None else x
    # The means of random bytes are all alike: channels of different brightness are told apart.
    x = (x * _rng.uniform(0.2, 1, c)).astype(np.uint8)
    w1, w2 = (
        (_rng.integers(-127, 128, size) if weight is None else np.full(size, weight)).astype(np.int8)
        for size in ((hidden, c), (c, hidden))
    )
    s1, s2 = (
        (_rng.uniform(0.5, 1.5, 1 if per_tensor else n) / 90 / k**0.5).astype(_F) for n, k in ((hidden, c), (c, hidden))
    )
    if per_tensor:
        s1, s2 = s1[0], s2[0]
    b1, b2 = (_rng.standard_normal(n).astype(_F) for n in (hidden, c))
    inputs = [
        x, _F(0.03), np.uint8(zeros[0]), w1, s1, b1 if bias else None, w2, s2, b2 if bias else None, _F(0.025),
        np.uint8(zeros[1]), _rng.integers(0, 256, 256).astype(np.uint8) if table else None,
    ]  # fmt: skip
    values = [None if v is None else np.asarray(v) for v in inputs]
    return Case("QSqueezeExcite", name, values, attributes)


CASES = [
    *[
        _case(f"{gate}, {activation}", (2, 5, 6, 40), 10, gate=gate, activation=activation, table=activation == "silu")
        for gate in ("hardsigmoid", "sigmoid")
        for activation in ("relu", "silu", "hardswish")
    ],
    _case("other slope", (1, 7, 7, 96), 24, alpha=0.2, beta=0.5, per_tensor=True),
    _case("plus the image", (1, 7, 7, 96), 24, residual=1, alpha=0.2),
    _case("plus the image, with a table", (3, 4, 5, 19), 3, residual=1, table=True, gate="sigmoid"),
    _case("no biases", (2, 6, 6, 32), 8, bias=False),
    _case("one channel", (2, 3, 3, 1), 1),
    _case("one pixel", (1, 1, 1, 72), 18),
    _case("odd channels", (1, 9, 11, 133), 33, gate="sigmoid"),
    _case("several pieces", (2, 30, 40, 100), 26),
    _case("many channels", (1, 5, 5, 1000), 250),
    _case("zero points 0", (1, 8, 8, 16), 4, zeros=(0, 0)),
    _case("zero points 255", (1, 8, 8, 16), 4, zeros=(255, 255)),
    _case("weights of zero", (1, 8, 8, 16), 4, weight=0),
    _case(
        "greatest weights on white",
        (1, 40, 40, 64),
        16,
        zeros=(0, 0),
        weight=127,
        x=np.full((1, 40, 40, 64), 255, np.uint8),
        gate="sigmoid",
    ),
    _case(
        "least weights on white",
        (1, 8, 8, 24),
        16,
        zeros=(0, 0),
        weight=-127,
        x=np.full((1, 8, 8, 24), 255, np.uint8),
        activation="silu",
        gate="sigmoid",
    ),
    _case("empty", (0, 4, 4, 8), 2),
]
