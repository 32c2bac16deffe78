"""Saying what a table is, where ONNX Runtime has something faster than looking up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxcompress.ops.lookup import GATE_STEPS, SIGMOID_STEPS
from onnxcompress.passes.lower.convolution.tables import IDENTITY, quantize
from onnxcompress.passes.quantize.arithmetic import LEAST_SCALE, Parameters

Array = np.ndarray[Any, Any]

MOST_STEPS, MOST_MEAN, MOST_BIAS = 1, 0.2, 0.1
"""By which the description may differ from the table: of one byte, on average, and on average with its sign.

Through a deep network a bias of a third of a step in every layer adds up (a text recognizer lost 5 of 100 lines).
"""


def describe(table: Array, given: Parameters) -> dict[str, Any]:
    """Attributes that tell a function body what a table is (see `onnxcompress.ops.lookup`); empty: nothing known.

    Args:
        table: uint8 [256].
        given: what the bytes that are looked up mean.

    1. The identity between two bounds.
    2. To a step at most, and much less on average, an affine map of x, Sigmoid, HardSwish or SiLU of x as the body
       computes it, rounded with a scale and a zero point that are fitted to the table.
    """
    if np.array_equal(table, np.clip(IDENTITY, table.min(), table.max())):
        return {"table_as": "clip", "table_numbers": (float(table.min()), float(table.max()))}
    x = given.dequantize(IDENTITY)
    for name, function in _FUNCTIONS.items():
        values = function(x, given)
        fitted = _fitted(values, table, given)
        if fitted is not None and _is_close(quantize(values, fitted), table):
            numbers = (given.scale, given.zero_point, fitted.scale, fitted.zero_point)
            return {"table_as": name, "table_numbers": tuple(float(np.float32(n)) for n in numbers)}
    return {}


def _fitted(values: Array, table: Array, given: Parameters) -> Parameters | None:
    """Scale and zero point such that round(values / scale) + zero_point is the table, by least squares."""
    inside = (table > 0) & (table < 255)
    if inside.sum() < 2 or np.ptp(values[inside]) == 0:
        return None
    slope, offset = np.polyfit(values[inside].astype(np.float64), table[inside].astype(np.float64), 1)
    zero_point = round(float(offset))
    if slope <= LEAST_SCALE or not 0 <= zero_point <= 255:
        return None
    return Parameters(float(np.float32(1 / slope)), zero_point, given.dtype)


def _is_close(described: Array, table: Array) -> bool:
    off = described.astype(int) - table.astype(int)
    return bool(np.abs(off).max() <= MOST_STEPS and np.abs(off).mean() <= MOST_MEAN and np.abs(off.mean()) <= MOST_BIAS)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))))


def _hard_swish(x: Array, given: Parameters) -> Array:
    gate = np.clip(np.rint((x + 3) * GATE_STEPS), 0, 255) / GATE_STEPS
    return np.asarray(x * gate / 6)


def _silu(x: Array, given: Parameters) -> Array:
    return np.asarray(x * np.clip(np.rint(_sigmoid(x) * SIGMOID_STEPS), 0, 255) / SIGMOID_STEPS)


_FUNCTIONS: dict[str, Callable[[Array, Parameters], Array]] = {
    "linear": lambda x, given: x,
    "sigmoid": lambda x, given: _sigmoid(x),
    "hardswish": _hard_swish,
    "silu": _silu,
}
"""By speed."""
