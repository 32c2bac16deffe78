"""Cases of QResize."""

import numpy as np

from tests.ops.cases.case import Case

_rng = np.random.default_rng(23)
_table = _rng.integers(0, 256, 256).astype(np.uint8)


def _case(name: str, shape: tuple[int, ...], scales: tuple[int, int], table: bool = False) -> Case:
    x = _rng.integers(0, 256, shape).astype(np.uint8)
    return Case("QResize", name, [x, _table] if table else [x], {"scales": scales}, steps=0, share=0)


CASES = [
    *[_case(f"twice, {c} channels", (2, 3, 5, c), (2, 2), c == 24) for c in (1, 3, 16, 24, 64, 96, 130)],
    _case("by one", (1, 5, 6, 7), (1, 1)),
    _case("by one with a table", (1, 5, 6, 7), (1, 1), True),
    _case("down only", (1, 5, 6, 7), (3, 1), True),
    _case("across only", (2, 5, 6, 33), (1, 4)),
    _case("many rows", (1, 40, 40, 96), (2, 2)),
    _case("empty", (0, 3, 3, 4), (2, 2)),
]
