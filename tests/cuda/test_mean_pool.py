"""The CUDA mean of tokens, emulated, against the numpy reference of MeanPool."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.meanpool import MEANPOOL
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/mean_pool.hpp"
static void run(const oc::cuda::MeanPool& arguments) { oc::cuda::mean_pool(arguments, nullptr); }
static void scratch(const oc::cuda::MeanPool& arguments, size_t& count) {
  count = oc::cuda::mean_pool_scratch(arguments);
}
OC_EXPORT(mean_pool, run)
OC_EXPORT(mean_pool_scratch, scratch)
OC_EXPORT_SIZE(MeanPool)
"""

WEIGHT_TYPES = {np.dtype(kind): i for i, kind in enumerate((np.int64, np.int32, np.float32, np.bool_))}


class MeanPool(ctypes.Structure):
    """Of csrc/cuda/mean_pool.hpp."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("channels", ctypes.c_int),
        ("x", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("weight_type", ctypes.c_int),
        ("minimum_count", ctypes.c_float),
        ("normalizes", ctypes.c_bool),
        ("norm_epsilon", ctypes.c_float),
        ("y", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("multiprocessors", ctypes.c_int),
    )


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("mean_pool", ["cuda/mean_pool.cu"], BINDINGS)


def inputs_of(batch: int, length: int, channels: int, kind: Any = np.int64) -> tuple[Array, Array]:
    rng = np.random.default_rng(length * 1009 + channels)
    x = rng.normal(0.3, 1, (batch, length, channels)).astype(np.float32)
    weights = rng.random((batch, length))
    return x, weights.astype(kind) if kind is np.float32 else (weights < 0.7).astype(kind)


def run(library: Emulated, x: Array, weights: Array, attributes: dict[str, float], multiprocessors: int) -> Array:
    """y. Scratch memory beyond what is asked for stays as it was."""
    batch, length, channels = x.shape
    y = np.full((batch, channels), np.nan, np.float32)
    arguments = library.structure(
        MeanPool, batch=batch, length=length, channels=channels, x=x, weights=weights,
        weight_type=WEIGHT_TYPES[weights.dtype], minimum_count=attributes["minimum_count"],
        normalizes=bool(attributes["normalize"]), norm_epsilon=attributes["norm_epsilon"], y=y,
        multiprocessors=multiprocessors,
    )  # fmt: skip
    count = np.zeros(1, np.uint64)
    library.call("mean_pool_scratch", arguments, count)
    scratch = np.full(int(count[0]) + 16, np.nan, np.float32)
    arguments.scratch = scratch.ctypes.data
    library.call("mean_pool", arguments)
    assert np.isnan(scratch[-16:]).all()
    assert count[0] <= 8 * multiprocessors * 128 + batch * (channels + 128)
    return y


def check(library: Emulated, x: Array, weights: Array, multiprocessors: int = 4, **attributes: float) -> None:
    """To 2e-6 of the greatest value."""
    filled: Any = {**MEANPOOL.attributes, **attributes}
    (want,) = MEANPOOL.reference(filled, x, weights)
    assert want is not None
    got = run(library, x, weights, filled, multiprocessors)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max(initial=1e-30))


@pytest.mark.parametrize("channels", [1, 3, 4, 67, 127, 128, 129, 300, 384])
@pytest.mark.parametrize("length", [1, 5, 33])
@pytest.mark.parametrize("normalize", [0, 1])
def test_every_width(library: Emulated, order: str, channels: int, length: int, normalize: int) -> None:
    check(library, *inputs_of(2, length, channels), normalize=normalize)


@pytest.mark.parametrize("length", [7, 31, 32, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("multiprocessors", [1, 7, 108])
def test_tokens_in_parts(library: Emulated, order: str, length: int, multiprocessors: int) -> None:
    check(library, *inputs_of(2, length, 70), multiprocessors=multiprocessors, normalize=1)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.float32, np.bool_])
def test_weights_of_every_type(library: Emulated, kind: Any) -> None:
    x, weights = inputs_of(3, 90, 40, kind)
    check(library, x, weights)
    check(library, x, weights, minimum_count=80.0)
    if kind is not np.bool_:
        check(library, x, weights * kind(3), minimum_count=2.0)


def test_more_rows_than_blocks(library: Emulated, order: str) -> None:
    check(library, *inputs_of(70, 3, 150), multiprocessors=1, normalize=1)


@pytest.mark.parametrize("normalize", [0, 1])
def test_without_tokens_to_keep(library: Emulated, normalize: int) -> None:
    x, weights = inputs_of(2, 40, 24)
    weights[1] = 0
    check(library, x, weights, normalize=normalize)
    check(library, *inputs_of(2, 0, 24), normalize=normalize)


def test_the_least_count_and_norm(library: Emulated) -> None:
    x, weights = inputs_of(2, 9, 16)
    check(library, x, weights, minimum_count=40.0)
    check(library, x, weights, normalize=1, norm_epsilon=10.0)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_column(library: Emulated, value: float) -> None:
    x, weights = inputs_of(2, 50, 20)
    weights[:] = 1
    x[1, 37, 3] = value
    y = run(library, x, weights, {"minimum_count": 1e-9, "normalize": 0, "norm_epsilon": 1e-12}, 4)
    assert np.argwhere(~np.isfinite(y)).tolist() == [[1, 3]]


@pytest.mark.parametrize("shape", [(0, 5, 8), (2, 5, 0)])
def test_no_results_need_no_launch(library: Emulated, shape: tuple[int, int, int]) -> None:
    check(library, *inputs_of(*shape))
