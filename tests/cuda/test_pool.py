"""CUDA kernels of QPool and QSqueezeExcite, emulated, against their numpy references."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.qpool import QPOOL
from onnxcompress.ops.qsqueezeexcite import QSQUEEZEEXCITE
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/pool.hpp"
#include "cuda/squeeze_excite.hpp"
using namespace oc::cuda;
static void run_pool(const Pool& arguments) { pool(arguments, nullptr); }
static void run_sums(const ChannelSums& arguments) { channel_sums(arguments, nullptr); }
static void run_global(const GlobalPool& arguments) { global_pool(arguments, nullptr); }
static void run_parts(int64_t images, int64_t pixels, int64_t channels, int64_t multiprocessors, int64_t* parts) {
  *parts = parts_of_image(images, pixels, channels, static_cast<int>(multiprocessors));
}
static void run_excite(const SqueezeExcite& arguments) { squeeze_excite(arguments, nullptr); }
static void run_scratch(const SqueezeExcite& arguments, int64_t* bytes) { *bytes = squeeze_excite_scratch(arguments); }
OC_EXPORT(pool, run_pool)
OC_EXPORT(sums, run_sums)
OC_EXPORT(global, run_global)
OC_EXPORT(parts, run_parts)
OC_EXPORT(excite, run_excite)
OC_EXPORT(scratch, run_scratch)
OC_EXPORT_SIZE(PoolAxis)
OC_EXPORT_SIZE(PoolScale)
OC_EXPORT_SIZE(Pool)
OC_EXPORT_SIZE(ChannelSums)
OC_EXPORT_SIZE(GlobalPool)
OC_EXPORT_SIZE(SqueezeExcite)
"""

X_SCALE, X_ZERO, Y_SCALE, Y_ZERO = 0.02, 77, 0.013, 31


class PoolAxis(ctypes.Structure):
    """Of csrc/cuda/pool.hpp."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("size", "windows", "kernel", "stride", "before", "after"))


class PoolScale(ctypes.Structure):
    """Of csrc/cuda/pool.hpp."""

    _fields_ = (("ratio", ctypes.c_float), ("x_zero", ctypes.c_int), ("y_zero", ctypes.c_int))


class Pool(ctypes.Structure):
    """Of csrc/cuda/pool.hpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "y", "table")),
        ("images", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("down", PoolAxis),
        ("across", PoolAxis),
        ("average", ctypes.c_bool),
        ("include_pad", ctypes.c_bool),
        ("scale", PoolScale),
    )


class ChannelSums(ctypes.Structure):
    """Of csrc/cuda/pool.hpp."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("images", "pixels", "channels", "parts")),
        ("sums", ctypes.c_void_p),
    )


class GlobalPool(ctypes.Structure):
    """Of csrc/cuda/pool.hpp."""

    _fields_ = (("sums", ChannelSums), ("y", ctypes.c_void_p), ("table", ctypes.c_void_p), ("scale", PoolScale))


class SqueezeExcite(ctypes.Structure):
    """Of csrc/cuda/squeeze_excite.hpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "table", "y")),
        ("images", ctypes.c_int64),
        ("pixels", ctypes.c_int64),
        ("channels", ctypes.c_int),
        ("hidden", ctypes.c_int),
        ("x_scale", ctypes.c_float),
        ("y_scale", ctypes.c_float),
        ("x_zero", ctypes.c_int),
        ("y_zero", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("w1", "w1_scale", "b1", "w2", "w2_scale", "b2")),
        ("activation", ctypes.c_int),
        ("sigmoid", ctypes.c_bool),
        *((name, ctypes.c_float) for name in ("alpha", "beta", "residual")),
        ("parts", ctypes.c_int64),
        ("scratch", ctypes.c_void_p),
    )


ACTIVATIONS = ["", "relu", "gelu", "gelu_tanh", "silu", "hardswish"]
"""In the order of csrc/cuda/activation.hpp."""


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("pool", ["cuda/pool.cu", "cuda/squeeze_excite.cu", "cuda/elementwise.cu"], BINDINGS)


_rng = np.random.default_rng(53)


def _bytes(*shape: int) -> Array:
    return _rng.integers(0, 256, shape).astype(np.uint8)


def scale_of(library: Emulated) -> PoolScale:
    return library.structure(PoolScale, ratio=X_SCALE / Y_SCALE, x_zero=X_ZERO, y_zero=Y_ZERO)


def expected_pool(x: Array, table: Array | None = None, **attributes: Any) -> Array:
    parameters = (np.float32(X_SCALE), np.uint8(X_ZERO), np.float32(Y_SCALE), np.uint8(Y_ZERO))
    defaults = {"strides": (1, 1), "pads": (0, 0, 0, 0), "ceil_mode": 0, "count_include_pad": 0}
    (y,) = QPOOL.reference({**defaults, **attributes}, x, *parameters, table)
    assert y is not None
    return y


def run_pool(library: Emulated, x: Array, expected: Array, table: Array | None = None, **attributes: Any) -> Array:
    """The kernel's result where the reference's has this shape."""
    y = np.full_like(expected, 99)
    kernel, strides, pads = attributes["kernel_shape"], attributes["strides"], attributes["pads"]
    down, across = (
        library.structure(
            PoolAxis, size=x.shape[1 + axis], windows=y.shape[1 + axis], kernel=kernel[axis], stride=strides[axis],
            before=pads[axis], after=pads[2 + axis],
        )
        for axis in (0, 1)
    )  # fmt: skip
    optional = {} if table is None else {"table": table}
    arguments = library.structure(
        Pool, x=x, y=y, images=x.shape[0], channels=x.shape[3], down=down, across=across,
        average=attributes["mode"] == "average", include_pad=bool(attributes.get("count_include_pad", 0)),
        scale=scale_of(library), **optional,
    )  # fmt: skip
    library.call("pool", arguments)
    return y


def check_pool(library: Emulated, x: Array, table: Array | None = None, **attributes: Any) -> None:
    """Exactly, but for one step in a few means near a tie."""
    expected = expected_pool(x, table, **attributes)
    y = run_pool(library, x, expected, table, **attributes)
    if attributes["mode"] == "max":
        np.testing.assert_array_equal(y, expected)
    else:
        assert close(y, expected)


def close(y: Array, expected: Array) -> bool:
    differ = np.abs(y.astype(int) - expected)
    return bool((differ <= 1).all() and (differ > 0).sum() <= 2 + 3e-3 * y.size)


WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)},
    {"kernel_shape": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (0, 1, 2, 0)},
    {"kernel_shape": (9, 13), "strides": (1, 1), "pads": (4, 6, 4, 6)},  # larger than the image
    {"kernel_shape": (3, 3), "strides": (2, 3), "pads": (0, 0, 0, 1), "ceil_mode": 1},
    {"kernel_shape": (1, 1), "strides": (3, 2), "pads": (0, 0, 0, 0)},
]


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@pytest.mark.parametrize("channels", [1, 7, 20, 32])
def test_windows(library: Emulated, order: str, windows: dict[str, Any], channels: int) -> None:
    x = _bytes(2, 8, 7, channels)
    check_pool(library, x, mode="max", **windows)
    for include in (0, 1):
        check_pool(library, x, mode="average", count_include_pad=include, **windows)


@pytest.mark.parametrize("mode", ["max", "average"])
def test_wide_loads_of_large_results(library: Emulated, mode: str) -> None:
    check_pool(library, _bytes(2, 64, 65, 64), mode=mode, kernel_shape=(2, 2), strides=(1, 1), pads=(0, 0, 1, 0))


@pytest.mark.parametrize("channels", [3, 16])
def test_a_table_of_windows(library: Emulated, order: str, channels: int) -> None:
    x, table = _bytes(1, 5, 6, channels), (np.arange(256) // 2 + 30).astype(np.uint8)
    for mode in ("max", "average"):
        check_pool(library, x, table, mode=mode, **WINDOWS[1])


def test_padding_is_never_the_greatest(library: Emulated) -> None:
    check_pool(library, np.zeros((1, 6, 6, 4), np.uint8), mode="max", **WINDOWS[1])


def test_many_values_of_a_window_saturate(library: Emulated) -> None:
    x = np.full((1, 20, 30, 4), 255, np.uint8)
    check_pool(library, x, mode="average", kernel_shape=(20, 30), strides=(1, 1), pads=(0, 0, 0, 0))


SUMMED = [(1, 1), (6, 3), (49, 4), (33, 7), (70, 16), (100, 36), (50, 130), (64, 300)]
"""pixels, channels"""


@pytest.mark.parametrize(("pixels", "channels"), SUMMED)
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_sums_of_channels(library: Emulated, order: str, pixels: int, channels: int, parts: int) -> None:
    """Of parts, some of which are empty where pixels are few."""
    x, table = _bytes(2, pixels, channels), _bytes(256)
    for chosen in (None, table):
        sums = np.full((2, parts, channels), -1, np.int32)
        optional = {} if chosen is None else {"table": chosen}
        arguments = library.structure(
            ChannelSums, x=x, images=2, pixels=pixels, channels=channels, parts=parts, sums=sums, **optional
        )
        library.call("sums", arguments)
        values = x if chosen is None else chosen[x]
        np.testing.assert_array_equal(sums.sum(axis=1), values.astype(np.int32).sum(axis=1))


@pytest.mark.parametrize(("pixels", "channels"), SUMMED)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_mean_of_an_image(library: Emulated, order: str, pixels: int, channels: int, parts: int) -> None:
    x, table = _bytes(2, pixels, 1, channels), (np.arange(256) // 2 + 30).astype(np.uint8)
    for chosen in (None, table):
        y = np.full((2, 1, 1, channels), 99, np.uint8)
        sums = library.structure(
            ChannelSums, x=x, images=2, pixels=pixels, channels=channels, parts=parts,
            sums=np.zeros((2, parts, channels), np.int32),
        )  # fmt: skip
        optional = {} if chosen is None else {"table": chosen}
        library.call("global", library.structure(GlobalPool, sums=sums, y=y, scale=scale_of(library), **optional))
        assert close(y, expected_pool(x, chosen, mode="global_average"))


def parts_of(library: Emulated, *sizes: int) -> int:
    parts = np.zeros(1, np.int64)
    library.call("parts", *sizes, parts)
    return int(parts[0])


def test_large_images_are_shared_among_blocks(library: Emulated) -> None:
    """As far as multiprocessors are idle, and no further than parts have work."""
    large = parts_of(library, 1, 112 * 112, 64, 100)
    assert 4 < large <= 112 * 112 * 64 // 4 // 256  # no thread without pixels
    assert parts_of(library, 1, 7 * 7, 1280, 100) == 1
    assert parts_of(library, 4000, 112 * 112, 64, 100) == 1
    assert parts_of(library, 8, 112 * 112, 64, 100) < large
    assert parts_of(library, 0, 5, 5, 100) == parts_of(library, 2, 0, 5, 100) == 1


class Excite:
    """A squeeze-and-excitation of random layers, for the kernel and for the reference."""

    def __init__(self, pixels: int, channels: int, hidden: int, zeros: tuple[int, int] = (101, 60)) -> None:
        self.zeros, self.hidden = zeros, hidden
        self.x = (_bytes(2, pixels, 1, channels) * _rng.uniform(0.2, 1, channels)).astype(np.uint8)
        self.w1, self.w2 = (
            _rng.integers(-127, 128, size).astype(np.int8) for size in ((hidden, channels), (channels, hidden))
        )
        self.w1_scale, self.w2_scale = (
            (_rng.uniform(0.5, 1.5, n) / 90 / k**0.5).astype(np.float32)
            for n, k in ((hidden, channels), (channels, hidden))
        )
        self.b1, self.b2 = (_rng.standard_normal(n).astype(np.float32) for n in (hidden, channels))

    def expected(self, table: Array | None, attributes: dict[str, Any]) -> Array:
        (y,) = QSQUEEZEEXCITE.reference(
            attributes, self.x, np.float32(0.03), np.uint8(self.zeros[0]), self.w1, self.w1_scale, self.b1, self.w2,
            self.w2_scale, self.b2, np.float32(0.025), np.uint8(self.zeros[1]), table,
        )  # fmt: skip
        assert y is not None
        return y

    def run(self, library: Emulated, table: Array | None, parts: int, attributes: dict[str, Any]) -> Array:
        n, pixels, _, channels = self.x.shape
        more = (-channels) % 4
        y = np.full_like(self.x, 99)
        arguments = library.structure(
            SqueezeExcite, x=self.x, y=y, images=n, pixels=pixels, channels=channels, hidden=self.hidden, x_scale=0.03,
            y_scale=0.025, x_zero=self.zeros[0], y_zero=self.zeros[1], w1=np.pad(self.w1, ((0, 0), (0, more))),
            w1_scale=self.w1_scale, b1=self.b1, w2=np.ascontiguousarray(np.pad(self.w2.T, ((0, 0), (0, more)))),
            w2_scale=np.pad(self.w2_scale, (0, more)), b2=np.pad(self.b2, (0, more)),
            activation=ACTIVATIONS.index(attributes["activation"]), sigmoid=attributes["gate"] == "sigmoid",
            alpha=attributes["alpha"], beta=attributes["beta"], residual=float(attributes["residual"]), parts=parts,
            **({} if table is None else {"table": table}),
        )  # fmt: skip
        size = np.zeros(1, np.int64)
        library.call("scratch", arguments, size)
        behind = 16
        memory = np.full(int(size[0]) + behind, 0xCB, np.uint8)
        arguments.scratch = memory.ctypes.data
        library.call("excite", arguments)
        self.scratch = memory[:-behind]
        assert (memory[-behind:] == 0xCB).all()
        return y


HARD = {"gate": "hardsigmoid", "activation": "relu", "alpha": 0.2, "beta": 0.5, "residual": 0}


@pytest.mark.parametrize("gate", ["hardsigmoid", "sigmoid"])
@pytest.mark.parametrize("activation", ["relu", "silu", "hardswish"])
@pytest.mark.parametrize("residual", [0, 1])
def test_gates(library: Emulated, order: str, gate: str, activation: str, residual: int) -> None:
    attributes = {**HARD, "gate": gate, "activation": activation, "residual": residual}
    excite = Excite(12, 24, 6)
    assert close(excite.run(library, None, 2, attributes), excite.expected(None, attributes))


@pytest.mark.parametrize(
    ("pixels", "channels", "hidden"), [(1, 1, 1), (9, 3, 2), (20, 19, 3), (4, 133, 33), (5, 1000, 40), (30, 16, 70)]
)
def test_layers_of_many_sizes(library: Emulated, order: str, pixels: int, channels: int, hidden: int) -> None:
    excite = Excite(pixels, channels, hidden, zeros=(0, 255) if channels == 16 else (101, 60))
    for table in (None, np.sort(_bytes(256))):
        for parts in (1, 3):
            assert close(excite.run(library, table, parts, HARD), excite.expected(table, HARD))


def test_layers_that_shared_memory_cannot_hold(library: Emulated) -> None:
    excite = Excite(1, 12300, 4)
    assert close(excite.run(library, None, 1, HARD), excite.expected(None, HARD))
    assert (excite.scratch[-16:] != 0xCB).any(), "the images share a piece of the scratch"


def test_large_logits_saturate(library: Emulated) -> None:
    excite = Excite(4, 20, 5)
    excite.w2_scale *= np.float32(1e4)
    attributes = {**HARD, "gate": "sigmoid", "activation": "silu"}
    assert close(excite.run(library, None, 1, attributes), excite.expected(None, attributes))


def test_nothing_needs_no_launch(library: Emulated) -> None:
    x = np.zeros((0, 5, 5, 3), np.uint8)
    check_pool(library, x, mode="max", **WINDOWS[0])
    sums = library.structure(ChannelSums, images=0, pixels=4, channels=4, parts=1)
    library.call("sums", sums)
    library.call("global", library.structure(GlobalPool, sums=sums))
    library.call("excite", library.structure(SqueezeExcite, images=0, pixels=4, channels=4, hidden=1, parts=1))
