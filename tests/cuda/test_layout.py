"""CUDA kernels of QuantizeNHWC and DequantizeNCHW, emulated, against their numpy references."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.dequantizenchw import DEQUANTIZENCHW
from onnxcompress.ops.quantizenhwc import QUANTIZENHWC
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/layout.hpp"
static void run_quantize(const oc::cuda::QuantizeLayout& arguments) {
  oc::cuda::quantize_channels_last(arguments, nullptr);
}
static void run_dequantize(const oc::cuda::DequantizeLayout& arguments) {
  oc::cuda::dequantize_channels_first(arguments, nullptr);
}
OC_EXPORT(quantize, run_quantize)
OC_EXPORT(dequantize, run_dequantize)
OC_EXPORT_SIZE(QuantizeLayout)
OC_EXPORT_SIZE(DequantizeLayout)
"""


class QuantizeLayout(ctypes.Structure):
    """Of csrc/cuda/layout.hpp."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("images", "pixels", "channels")),
        ("scale", ctypes.c_float),
        ("zero", ctypes.c_int),
    )


class DequantizeLayout(ctypes.Structure):
    """Of csrc/cuda/layout.hpp."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("images", "pixels", "channels")),
        ("scale", ctypes.c_float),
        ("zero", ctypes.c_int),
        ("values", ctypes.c_void_p),
    )


SHAPES = [
    (1, 1, 1, 1),
    (2, 1, 7, 9),
    (1, 1, 50, 50),  # a plane of more than a tile
    (1, 3, 20, 28),  # whole words of pixels of three channels
    (2, 3, 5, 5),  # and none
    (1, 3, 40, 41),  # several tiles
    (2, 4, 3, 3),
    (1, 8, 17, 17),
    (2, 13, 4, 5),
    (1, 16, 11, 13),
    (1, 24, 9, 9),
    (1, 31, 8, 9),
    (2, 32, 9, 11),
    (1, 33, 3, 22),
    (2, 40, 8, 9),
    (1, 67, 5, 5),
    (1, 96, 2, 1),
]
"""[N, C, H, W]: tiles that end with the channels, with the pixels and with both; words and single bytes."""


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("layout", ["cuda/layout.cu"], BINDINGS)


def sizes(n: int, c: int, h: int, w: int) -> dict[str, int]:
    return {"images": n, "pixels": h * w, "channels": c}


def quantized(library: Emulated, x: Array, scale: float, zero: int) -> Array:
    n, c, h, w = x.shape
    y = np.full((n, h, w, c), 99, np.uint8)
    library.call("quantize", library.structure(QuantizeLayout, x=x, y=y, **sizes(*x.shape), scale=scale, zero=zero))
    return y


@pytest.mark.parametrize("shape", SHAPES)
def test_quantize(library: Emulated, order: str, shape: tuple[int, int, int, int]) -> None:
    """Exactly: x is divided by the scale, and no quotient of these is rounded to a tie."""
    x = np.random.default_rng(sum(shape)).normal(0, 2, shape).astype(np.float32)
    (expected,) = QUANTIZENHWC.reference({}, x, np.float32(0.031), np.uint8(77))
    np.testing.assert_array_equal(quantized(library, x, 0.031, 77), expected)


def test_quantize_ties_and_what_is_not_finite(library: Emulated) -> None:
    x = (np.arange(-40, 240, dtype=np.float32) / 2).reshape(1, 5, 7, 8)
    x[0, 0, 0, :5] = [np.nan, np.inf, -np.inf, 3e38, -3e38]
    (expected,) = QUANTIZENHWC.reference({}, x, np.float32(1), np.uint8(9))
    np.testing.assert_array_equal(quantized(library, x, 1, 9), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [False, True])
def test_dequantize(library: Emulated, order: str, shape: tuple[int, int, int, int], values: bool) -> None:
    n, c, h, w = shape
    rng = np.random.default_rng(sum(shape))
    x: Array = rng.integers(0, 256, (n, h, w, c)).astype(np.uint8)
    table: Array = rng.normal(size=256).astype(np.float32)
    y: Array = np.full(shape, np.nan, np.float32)
    optional = {"values": table} if values else {}
    arguments = library.structure(DequantizeLayout, x=x, y=y, **sizes(*shape), scale=0.031, zero=77, **optional)
    library.call("dequantize", arguments)
    (expected,) = DEQUANTIZENCHW.reference({}, x, np.float32(0.031), np.uint8(77), table if values else None)
    assert expected is not None
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=0)


def test_nothing_needs_no_launch(library: Emulated) -> None:
    assert quantized(library, np.zeros((0, 3, 4, 4), np.float32), 1, 0).size == 0
    x, y = np.zeros((1, 0, 4, 3), np.uint8), np.zeros((1, 3, 0, 4), np.float32)
    library.call("dequantize", library.structure(DequantizeLayout, x=x, y=y, **sizes(1, 3, 0, 4)))
