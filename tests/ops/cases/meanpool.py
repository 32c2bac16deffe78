"""Cases of MeanPool."""

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(0)


def _case(name: str, batch: int, length: int, channels: int, mask: Array | None = None, **attributes: Any) -> Case:
    x = _rng.normal(0.3, 1, (batch, length, channels)).astype(np.float32)
    kept = (_rng.random((batch, length)) < 0.7).astype(np.int64) if mask is None else mask
    return Case("MeanPool", name, [x, kept], attributes)


def _with(name: str, value: float) -> Case:
    case = _case(name, 2, 5, 7)
    x = np.array(case.inputs[0])
    x[1, 2, 3] = value
    return Case("MeanPool", name, [x, np.ones((2, 5), np.int64)])


CASES = [
    _case("sentences", 3, 20, 384),
    _case("normalized", 3, 20, 384, normalize=1),
    _case("odd channels", 2, 7, 67, normalize=1),
    _case("one channel", 2, 7, 1, normalize=1),
    _case("one token", 2, 1, 32, np.ones((2, 1), np.int64)),
    _case("int32", 2, 9, 16, _rng.integers(0, 2, (2, 9)).astype(np.int32)),
    _case("weights", 2, 9, 16, _rng.random((2, 9)).astype(np.float32)),
    _case("bool", 2, 9, 16, _rng.random((2, 9)) < 0.5),
    _case("all masked", 2, 9, 16, np.zeros((2, 9), np.int64)),
    _case("all masked and normalized", 2, 9, 16, np.zeros((2, 9), np.int64), normalize=1),
    _case("a minimum count", 2, 9, 16, np.eye(2, 9, dtype=np.int64), minimum_count=4.0),
    _case("a norm epsilon", 2, 9, 16, normalize=1, norm_epsilon=10.0),
    _case("no batch", 0, 9, 16),
    _case("no tokens", 2, 0, 16),
    _with("infinity", np.inf),
    _with("not a number", np.nan),
]
