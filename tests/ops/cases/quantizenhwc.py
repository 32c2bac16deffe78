"""Cases of QuantizeNHWC."""

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(25)


def _case(name: str, x: Array, scale: float = 0.021, zero: int = 119, finite: bool = True) -> Case:
    # Stock forms quantize values out of range to what the conversion of the processor gives.
    skip = {} if finite else {form: "not finite" for form in ("body", "reference_evaluator")}
    return Case("QuantizeNHWC", name, [x, np.asarray(np.float32(scale)), np.asarray(np.uint8(zero))], skip=skip)


def _floats(*shape: int) -> Array:
    return _rng.standard_normal(shape).astype(np.float32)


_wild = _floats(2, 3, 5, 21) * 10
_wild.reshape(-1)[:10] = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-42, -0.0, 1e9, -1e9, 2.7e6]

CASES = [
    *[_case(f"{c} channels", _floats(2, c, 7, 11)) for c in (1, 2, 3, 4, 5, 16, 24, 33, 64)],
    *[_case(f"many pixels, {c} channels", _floats(1, c, 130, 150)) for c in (1, 3, 17)],
    _case("zero point 0", _floats(1, 16, 4, 4), zero=0),
    _case("zero point 255", _floats(1, 3, 40, 4), zero=255),
    _case("ties, odd zero point", (np.arange(48, dtype=np.float32) / 2 - 10).reshape(1, 3, 4, 4), 1.0, 7),
    _case("not finite", _wild, finite=False),
    _case("one value", _floats(1, 1, 1, 1)),
    _case("empty", _floats(0, 3, 4, 4)),
]
