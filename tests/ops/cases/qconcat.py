"""Cases of QConcat."""

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(22)


def _bytes(*shape: int) -> Array:
    return _rng.integers(0, 256, shape).astype(np.uint8)


def _case(name: str, *x: Array, identity: tuple[int, ...] = (), **attributes: Any) -> Case:
    tables = _rng.integers(0, 256, (len(x), 256)).astype(np.uint8)
    for i in range(len(identity)):
        if identity[i]:
            tables[i] = np.arange(256)
    if identity:
        attributes["identity"] = identity
    return Case("QConcat", name, [tables, *x], attributes, steps=0, share=0)


CASES = [
    _case("one image", _bytes(1, 3, 4, 5)),
    _case("two images", _bytes(2, 5, 7, 64), _bytes(2, 5, 7, 32)),
    _case("odd channels", _bytes(2, 3, 5, 1), _bytes(2, 3, 5, 67), _bytes(2, 3, 5, 130), identity=(0, 1, 0)),
    _case("plain copies", _bytes(1, 9, 9, 24), _bytes(1, 9, 9, 16), identity=(1, 1)),
    _case(
        "a pyramid",
        _bytes(2, 1, 2, 24),
        _bytes(2, 2, 4, 24),
        _bytes(2, 4, 8, 24),
        _bytes(2, 8, 16, 24),
        upsample=(8, 4, 2, 1),
        identity=(1, 0, 1, 0),
    ),
    _case("all are enlarged", _bytes(1, 2, 3, 8), _bytes(1, 4, 6, 100), upsample=(6, 3)),
    _case("many rows", _bytes(1, 50, 60, 96), _bytes(1, 100, 120, 16), upsample=(2, 1)),
    _case("no channels in one", _bytes(1, 4, 4, 0), _bytes(1, 4, 4, 6)),
    _case("empty", _bytes(0, 4, 4, 3), _bytes(0, 4, 4, 6)),
]
