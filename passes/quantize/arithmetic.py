"""Scales, zero points and rounding: the numbers of ONNX QuantizeLinear.

q = saturate(round_half_even(x / scale) + zero_point), and back x = (q - zero_point) * scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize.scheme import type_limits

Array = np.ndarray[Any, Any]

LEAST_SCALE = 1e-12
"""Below it 1 / scale overflows float32 arithmetic; a tensor that narrow is all zeros to any metric."""


@dataclass(frozen=True)
class Parameters:
    """Scale and zero point of a per-tensor quantized activation."""

    scale: float
    zero_point: int
    dtype: ir.DataType

    @property
    def interval(self) -> tuple[float, float]:
        """The least and greatest real number that the type holds."""
        low, high = type_limits(self.dtype)
        return (low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale

    def quantize(self, values: Array) -> Array:
        """Integers of real `values`, any shape."""
        low, high = type_limits(self.dtype)
        rounded = np.rint(values / np.float32(self.scale)) + self.zero_point
        integers: Array = np.clip(rounded, low, high).astype(self.dtype.numpy())
        return integers

    def dequantize(self, values: Array) -> Array:
        """Real numbers of integer `values`, float32."""
        return (values.astype(np.float32) - self.zero_point) * np.float32(self.scale)


def parameters(low: float, high: float, dtype: ir.DataType) -> Parameters:
    """Parameters that hold [low, high] and, exactly, zero (so that padding is exact).

    Signed types are symmetric with zero point 0; unsigned ones asymmetric.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    least, greatest = type_limits(dtype)
    if least < 0:
        scale = max(-low, high) / greatest
        return Parameters(_usable(scale), 0, dtype)
    scale = _usable((high - low) / (greatest - least))
    return Parameters(scale, int(np.clip(round(-low / scale), least, greatest)), dtype)


def weight_scales(weight: Array, axis: int, limit: int = 127) -> Array:
    """Symmetric scales per channel, float32 `[channels]`; a channel of zeros gets 1."""
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    largest = np.max(np.abs(weight), axis=others).astype(np.float32) if weight.size else np.ones(0, np.float32)
    return np.where(largest > LEAST_SCALE, largest / np.float32(limit), np.float32(1)).astype(np.float32)


def quantize_weight(weight: Array, scales: Array, axis: int, limit: int = 127) -> Array:
    """s8 of `weight`, symmetric per channel along `axis`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.clip(np.rint(weight / scales.reshape(shape)), -limit, limit).astype(np.int8)


def dequantize_weight(weight: Array, scales: Array, axis: int) -> Array:
    """float32 of an s8 `weight`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight.astype(np.float32) * scales.reshape(shape)


def _usable(scale: float) -> float:
    """The scale as float32 sees it; 1 where the range is empty."""
    return float(np.float32(scale)) if scale > LEAST_SCALE else 1.0
