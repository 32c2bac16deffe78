"""The structure Epilogue of csrc/cuda/epilogue_arguments.hpp, and its reference."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from onnxcompress.ops.activation import ACTIVATIONS, activation_reference
from onnxcompress.ops.quantization import dequantize, quantize

Array = np.ndarray[Any, Any]

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float


class Epilogue(ctypes.Structure):
    """Arrays are given as their addresses: use Emulated.structure, or epilogue_fields."""

    _fields_ = (
        ("columns", _INT),
        ("x_zero", _INT),
        ("weight_sums", _POINTER),
        ("scale", _POINTER),
        ("bias", _POINTER),
        ("row_scale", _POINTER),
        ("row_zero", _POINTER),
        ("activation", _INT),
        ("residual_float", _POINTER),
        ("residual_bytes", _POINTER),
        ("residual_scale", _FLOAT),
        ("residual_zero", _INT),
        ("y", _POINTER),
        ("y_float", _POINTER),
        ("channels_first_pixels", _INT),
        ("y_inverse", _FLOAT),
        ("y_inverse_vector", _POINTER),
        ("y_zero", _INT),
        ("table", _POINTER),
        ("residual_after", ctypes.c_bool),
        ("inner_scale", _FLOAT),
        ("inner_zero", _INT),
        ("final_inverse", _FLOAT),
        ("final_zero", _INT),
    )


def activation_number(name: str) -> int:
    """Of the enumeration Activation of csrc/cuda/activation.hpp."""
    return ACTIVATIONS.index(name)


def epilogue_reference(real: Array, fields: dict[str, Any], activation: str = "") -> Array:
    """What the epilogue of these fields makes of sums * scale + bias, `real` float64 [M, N]: bytes or floats."""
    value = activation_reference(activation, real)
    residual: Array | float = 0.0
    if "residual_bytes" in fields:
        residual = dequantize(fields["residual_bytes"], fields["residual_scale"], fields["residual_zero"])
    elif "residual_float" in fields:
        residual = fields["residual_float"]
    after = bool(fields.get("residual_after"))
    if "y" not in fields:
        return np.asarray(value + residual)
    inverse = fields.get("y_inverse_vector", fields.get("y_inverse"))
    y = quantize(value if after else value + residual, 1 / np.asarray(inverse, np.float64), fields.get("y_zero", 0))
    if "table" in fields:
        y = fields["table"][y]
    if after:
        inner = dequantize(y, fields["inner_scale"], fields["inner_zero"])
        y = quantize(inner + residual, 1 / fields["final_inverse"], fields["final_zero"])
    return y
