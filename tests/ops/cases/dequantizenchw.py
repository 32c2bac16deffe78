"""Cases of DequantizeNCHW."""

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(26)
_values = (1 / (1 + np.exp(-np.linspace(-6, 6, 256)))).astype(np.float32)
_wild = _values.copy()
_wild[[0, 100, 255]] = [-np.inf, np.nan, np.inf]


def _case(name: str, shape: tuple[int, ...], zero: int = 119, values: Array | None = None) -> Case:
    x = _rng.integers(0, 256, shape).astype(np.uint8)
    inputs: list[Array | None] = [x, np.asarray(np.float32(0.021)), np.asarray(np.uint8(zero))]
    # Exact: the product of an integer of 9 bits and a float is rounded once.
    return Case("DequantizeNCHW", name, inputs if values is None else [*inputs, values], tolerance=0)


CASES = [
    *[_case(f"{c} channels", (2, 7, 11, c)) for c in (1, 2, 3, 4, 5, 16, 24, 33, 64, 85)],
    *[_case(f"values, {c} channels", (2, 7, 11, c), values=_values) for c in (1, 3, 6, 16, 85)],
    _case("a head", (1, 1, 3549, 6)),
    _case("many pixels", (1, 150, 160, 1), values=_values),
    _case("many pixels and channels", (1, 50, 30, 100)),
    _case("zero point 0", (1, 4, 4, 8), 0),
    _case("zero point 255", (1, 4, 4, 8), 255),
    _case("values that are not finite", (1, 20, 20, 3), values=_wild),
    _case("one value", (1, 1, 1, 1)),
    _case("empty", (0, 4, 4, 3)),
]
