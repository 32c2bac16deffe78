"""CUDA kernels of QTable, QElementwise, QConcat and QResize, emulated, against their numpy references."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.qconcat import QCONCAT
from onnxcompress.ops.qelementwise import QELEMENTWISE
from onnxcompress.ops.qresize import QRESIZE
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/concat.hpp"
#include "cuda/elementwise.hpp"
#include "cuda/table.hpp"
static void run_table(const oc::cuda::Table& arguments) { oc::cuda::apply_table(arguments, nullptr); }
static void run_elementwise(const oc::cuda::Elementwise& arguments) { oc::cuda::elementwise(arguments, nullptr); }
static void run_place(const oc::cuda::PlacedImage* images, int64_t count, const oc::cuda::Placement& placement) {
  oc::cuda::place(images, static_cast<int>(count), placement, nullptr);
}
OC_EXPORT(table, run_table)
OC_EXPORT(elementwise, run_elementwise)
OC_EXPORT(place, run_place)
OC_EXPORT_SIZE(Table)
OC_EXPORT_SIZE(Elementwise)
OC_EXPORT_SIZE(PlacedImage)
OC_EXPORT_SIZE(Placement)
"""

OPERATIONS = ("add", "sub", "mul")


class Table(ctypes.Structure):
    """Of csrc/cuda/table.hpp."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("table", ctypes.c_void_p),
    )


class Elementwise(ctypes.Structure):
    """Of csrc/cuda/elementwise.hpp."""

    _fields_ = (
        ("operation", ctypes.c_int),
        ("a", ctypes.c_void_p),
        ("a_table", ctypes.c_void_p),
        ("a_scale", ctypes.c_float),
        ("a_zero", ctypes.c_int),
        ("b_bytes", ctypes.c_void_p),
        ("b_floats", ctypes.c_void_p),
        ("b_scale", ctypes.c_float),
        ("b_zero", ctypes.c_int),
        ("y", ctypes.c_void_p),
        ("y_scale", ctypes.c_float),
        ("y_zero", ctypes.c_int),
        ("table", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "channels", "image_pixels", "upsample", "width")),
    )


class PlacedImage(ctypes.Structure):
    """Of csrc/cuda/concat.hpp."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("channels", "down", "across")),
    )


class Placement(ctypes.Structure):
    """Of csrc/cuda/concat.hpp."""

    _fields_ = (("y", ctypes.c_void_p), ("rows", ctypes.c_int64), ("width", ctypes.c_int64))


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("elementwise", ["cuda/table.cu", "cuda/elementwise.cu", "cuda/concat.cu"], BINDINGS)


_rng = np.random.default_rng(51)


def _bytes(*shape: int) -> Array:
    return _rng.integers(0, 256, shape).astype(np.uint8)


def _floats(*shape: int) -> Array:
    return (_rng.standard_normal(shape) * 0.7).astype(np.float32)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 4096, 4101])
def test_table(library: Emulated, order: str, count: int) -> None:
    x, table = _bytes(count), _bytes(256)
    y = np.zeros_like(x)
    library.call("table", library.structure(Table, x=x, y=y, count=count, table=table))
    np.testing.assert_array_equal(y, table[x])


def test_every_byte_of_a_table(library: Emulated, order: str) -> None:
    x, table = np.arange(256).astype(np.uint8), _rng.permutation(256).astype(np.uint8)
    y = np.zeros_like(x)
    library.call("table", library.structure(Table, x=x, y=y, count=256, table=table))
    np.testing.assert_array_equal(y, table)


def combine(
    library: Emulated,
    operation: str,
    a: Array,
    b: Array,
    scales: tuple[float, float, float] = (0.031, 0.017, 0.029),
    zeros: tuple[int, int, int] = (120, 7, 99),
    table: Array | None = None,
    a_table: Array | None = None,
    **shape: int,
) -> Array:
    y = np.full(a.shape, 99, np.uint8)
    arrays = {"a": a, "b_bytes" if b.dtype == np.uint8 else "b_floats": b, "y": y}
    arrays |= {name: value for name, value in (("table", table), ("a_table", a_table)) if value is not None}
    arguments = library.structure(
        Elementwise, operation=OPERATIONS.index(operation), a_scale=scales[0], b_scale=scales[1], y_scale=scales[2],
        a_zero=zeros[0], b_zero=zeros[1], y_zero=zeros[2], count=a.size, **{"upsample": 1, **shape}, **arrays,
    )  # fmt: skip
    library.call("elementwise", arguments)
    return y


def reference(
    operation: str,
    a: Array,
    b: Array,
    scales: tuple[float, float, float] = (0.031, 0.017, 0.029),
    zeros: tuple[int, int, int] = (120, 7, 99),
    table: Array | None = None,
    upsample: int = 1,
) -> Array:
    f = [np.float32(scale) for scale in scales]
    z = [np.uint8(zero) for zero in zeros]
    attributes = {"operation": operation, "upsample": upsample}
    (y,) = QELEMENTWISE.reference(attributes, a, f[0], z[0], b, f[1], z[1], f[2], z[2], table)
    assert y is not None
    return y


def close(y: Array, expected: Array) -> bool:
    """At most a step apart, in very few values."""
    differ = np.abs(y.astype(int) - expected)
    return bool((differ <= 1).all() and (differ > 0).sum() <= 2 + 3e-3 * y.size)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("zeros", [(0, 255, 128), (255, 0, 7)])
def test_every_pair_of_bytes(library: Emulated, operation: str, zeros: tuple[int, int, int]) -> None:
    a, b = (np.ascontiguousarray(x).astype(np.uint8) for x in np.meshgrid(np.arange(256), np.arange(256)))
    assert close(combine(library, operation, a, b, zeros=zeros), reference(operation, a, b, zeros=zeros))


def test_ties_are_rounded_to_even_before_the_zero_point(library: Emulated) -> None:
    a, b = (np.ascontiguousarray(x).astype(np.uint8) for x in np.meshgrid(np.arange(0, 256, 3), np.arange(256)))
    scales, zeros = (0.5, 0.5, 1.0), (3, 5, 7)
    np.testing.assert_array_equal(combine(library, "add", a, b, scales, zeros), reference("add", a, b, scales, zeros))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("count", [1, 7, 31, 32, 4099])
@pytest.mark.parametrize("make", [_bytes, _floats])
def test_of_one_shape(library: Emulated, order: str, operation: str, count: int, make: Any) -> None:
    a, b, table = _bytes(count), make(count), np.sort(_bytes(256))
    raw = combine(library, operation, a, b)
    assert close(raw, reference(operation, a, b))
    np.testing.assert_array_equal(combine(library, operation, a, b, table=table), table[raw])


@pytest.mark.parametrize("channels", [1, 3, 6, 12, 16, 40, 133])
@pytest.mark.parametrize("make", [_bytes, _floats])
@pytest.mark.parametrize("of_each", [True, False])
def test_values_of_channels(library: Emulated, order: str, channels: int, make: Any, of_each: bool) -> None:
    a, b = _bytes(3, 2, 5, channels), make(3 if of_each else 1, 1, 1, channels)
    for operation in OPERATIONS:
        y = combine(library, operation, a, b, channels=channels, image_pixels=10 if of_each else 0)
        assert close(y, reference(operation, a, b))


@pytest.mark.parametrize("channels", [1, 5, 12, 48])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_smaller_image(library: Emulated, order: str, channels: int, factor: int) -> None:
    a, b = _bytes(2, 2 * factor, 5 * factor, channels), _bytes(2, 2, 5, channels)
    for operation in OPERATIONS:
        y = combine(library, operation, a, b, channels=channels, upsample=factor, width=5 * factor)
        assert close(y, reference(operation, a, b, upsample=factor))


def test_a_table_of_the_input(library: Emulated, order: str) -> None:
    a, b, table = _bytes(2, 3, 3, 20), _floats(2, 1, 1, 20), _bytes(256)
    y = combine(library, "mul", a, b, a_table=table, channels=20, image_pixels=9)
    assert close(y, reference("mul", table[a], b))


def test_what_is_not_finite_or_beyond_a_float(library: Emulated) -> None:
    a, b = _bytes(64), _floats(64)
    b[:6] = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40]
    a[0] = 120  # 0 times infinity
    for operation in OPERATIONS:
        assert close(combine(library, operation, a, b), reference(operation, a, b))
    b = _bytes(64)
    a[:8], b[8:16] = 120, 7
    for scales in [(1.0, 1.0, 1e-38), (1e30, 1e30, 1e-30), (1e-30, 1e-30, 1.0)]:
        y = combine(library, "mul", a, b, scales)
        np.testing.assert_array_equal(y, reference("mul", a, b, scales))


def test_nothing_needs_no_launch(library: Emulated) -> None:
    assert combine(library, "add", _bytes(0), _bytes(0)).size == 0
    nothing = _bytes(0)
    library.call("table", library.structure(Table, x=nothing, y=nothing, table=_bytes(256)))
    assert place(library, [_bytes(0, 2, 2, 3)], [None], [(1, 1)]).size == 0


def place(library: Emulated, x: list[Array], tables: list[Array | None], factors: list[tuple[int, int]]) -> Array:
    images = (PlacedImage * len(x))()
    for image, source, table, (down, across) in zip(images, x, tables, factors, strict=True):
        image.x, image.table = source.ctypes.data, None if table is None else table.ctypes.data
        image.channels, image.down, image.across = source.shape[3], down, across
    n, h, w, _ = x[0].shape
    height, width = h * factors[0][0], w * factors[0][1]
    y = np.full((n, height, width, sum(source.shape[3] for source in x)), 99, np.uint8)
    placement = library.structure(Placement, y=y, rows=n * height, width=width)
    library.structure(PlacedImage)  # holds its size to the C++ one
    library.call("place", np.frombuffer(memoryview(images).cast("B"), np.uint8), len(x), placement)
    return y


@pytest.mark.parametrize("channels", [[16, 32], [5], [16, 8, 4], [4, 3, 16], [1, 2], [64, 16, 16, 32], [0, 7]])
def test_side_by_side(library: Emulated, order: str, channels: list[int]) -> None:
    """In pieces of 16 bytes, 4 and 1, as far as all that stands before them allows."""
    x = [_bytes(2, 3, 5, c) for c in channels]
    tables = np.stack([_bytes(256) for _ in x])
    (expected,) = QCONCAT.reference({"upsample": (), "identity": ()}, tables, *x)
    np.testing.assert_array_equal(place(library, x, list(tables), [(1, 1)] * len(x)), expected)


def test_enlarged_side_by_side(library: Emulated, order: str) -> None:
    factors = (2, 1, 6)
    x = [_bytes(2, 12 // f, 6 // f, c) for f, c in zip(factors, (16, 48, 20), strict=True)]
    tables = np.stack([_bytes(256), np.arange(256).astype(np.uint8), _bytes(256)])
    (expected,) = QCONCAT.reference({"upsample": factors, "identity": ()}, tables, *x)
    y = place(library, x, [tables[0], None, tables[2]], [(f, f) for f in factors])
    np.testing.assert_array_equal(y, expected)


def test_more_images_than_one_launch_takes(library: Emulated) -> None:
    x = [_bytes(1, 2, 3, 1 + i % 5) for i in range(37)]
    np.testing.assert_array_equal(place(library, x, [None] * 37, [(1, 1)] * 37), np.concatenate(x, axis=3))


@pytest.mark.parametrize("factors", [(1, 1), (2, 2), (3, 1), (1, 4), (2, 5)])
@pytest.mark.parametrize("channels", [3, 20, 32])
def test_enlarged(library: Emulated, order: str, factors: tuple[int, int], channels: int) -> None:
    x, table = _bytes(2, 4, 5, channels), _bytes(256)
    for chosen in (None, table):
        (expected,) = QRESIZE.reference({"scales": factors}, x, chosen)
        np.testing.assert_array_equal(place(library, [x], [chosen], [factors]), expected)
