"""Arithmetic that the references of several operators share."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def quantize(x: Array, scale: Array | float, zero_point: Array | int) -> Array:
    """saturate(round(x / scale) + zero_point) as uint8, ties to even; not-a-number becomes 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        y = np.rint(np.asarray(x, np.float64) / np.asarray(scale, np.float64)) + np.asarray(zero_point, np.float64)
    quantized: Array = np.nan_to_num(np.clip(y, 0, 255), nan=0.0).astype(np.uint8)
    return quantized


def dequantize(q: Array, scale: Array | float, zero_point: Array | int) -> Array:
    """(q - zero_point) * scale in float64."""
    return (q.astype(np.float64) - np.asarray(zero_point, np.float64)) * np.asarray(scale, np.float64)
