"""Cases of QTable."""

import numpy as np

from tests.ops.cases.case import Case

_rng = np.random.default_rng(0)
_table = _rng.integers(0, 256, 256).astype(np.uint8)


def _case(name: str, *shape: int) -> Case:
    return Case("QTable", name, [_rng.integers(0, 256, shape).astype(np.uint8), _table], steps=0, share=0)


CASES = [
    _case("one value", 1),
    _case("scalar"),
    _case("a tail", 3, 67),
    _case("images", 2, 5, 7, 16),
    _case("more than one thread's piece", 3, 65536),
    _case("empty", 0, 4),
]
