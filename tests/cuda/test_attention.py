"""CUDA attention, emulated, against the numpy reference of QAttention."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.qattention import attention
from onnxcompress.ops.quantization import quantize
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/attention.hpp"
static void run_attention(const oc::cuda::Attention& arguments) { oc::cuda::attention(arguments, nullptr); }
OC_EXPORT(attention, run_attention)
OC_EXPORT_SIZE(Attention)
"""

MASK_TYPES = {np.dtype(kind): i for i, kind in enumerate((np.int64, np.int32, np.float32, np.bool_), start=1)}


class AttentionMask(ctypes.Structure):
    """Of csrc/cuda/attention.hpp."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("adds", ctypes.c_bool),
        ("values", ctypes.c_void_p),
        ("batch_stride", ctypes.c_int64),
        ("head_stride", ctypes.c_int64),
        ("query_stride", ctypes.c_int64),
    )


class Attention(ctypes.Structure):
    """Of csrc/cuda/attention.hpp."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        *((name, ctypes.c_int) for name in ("keys", "heads", "size")),
        *((name, ctypes.c_void_p) for name in ("qkv", "score_scale", "value_scale")),
        ("mask", AttentionMask),
        ("y_zero", ctypes.c_int),
        ("y", ctypes.c_void_p),
    )


@dataclass
class Case:
    """spread: the standard deviation of scores."""

    batch: int
    keys: int
    heads: int
    size: int
    mask: Array | None = None
    adds: bool = False
    spread: float = 1.5
    qkv: Array | None = None
    zero_point: int = 128

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.keys * 1009 + self.size)
        self.channels = self.heads * self.size
        if self.qkv is None:
            drawn = rng.normal(128, 40, (self.batch, self.keys, 3 * self.channels))
            self.qkv = np.clip(drawn, 0, 255).astype(np.uint8)
        self.q_scale, self.k_scale = (rng.uniform(0.8, 1.2, (2, self.heads)) * np.sqrt(self.spread) / 40).astype("f4")
        self.v_scale = rng.uniform(0.01, 0.03, self.channels).astype(np.float32)
        self.attributes = {"num_heads": self.heads, "scale": 0.0, "mask_kind": "add" if self.adds else "keep"}
        self.real = attention(self.attributes, self.qkv, self.q_scale, self.k_scale, self.v_scale, self.mask)
        reach = {0: self.real.max(initial=0) / 255, 255: -self.real.min(initial=0) / 255}
        self.y_scale = np.float32(max(reach.get(self.zero_point, np.abs(self.real).max(initial=0) / 127), 1e-6))


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("attention", ["cuda/attention.cu"], BINDINGS)


def mask_of(case: Case) -> AttentionMask:
    mask = case.mask
    if mask is None:
        return AttentionMask()
    assert mask.flags.c_contiguous
    made = AttentionMask(type=MASK_TYPES[mask.dtype], adds=case.adds, values=mask.ctypes.data)
    if not case.adds:
        made.batch_stride = case.keys
        return made
    rows = mask.shape[2]
    made.query_stride = 0 if rows == 1 else case.keys
    made.head_stride = 0 if mask.shape[1] == 1 else rows * case.keys
    made.batch_stride = 0 if mask.shape[0] == 1 else mask.shape[1] * rows * case.keys
    return made


def run(library: Emulated, case: Case) -> Array:
    """What the kernel writes. It writes nothing beyond: the bytes after y stay as they were."""
    guarded = np.full(case.batch * case.keys * case.channels + 64, 99, np.uint8)
    softmax = np.float32(1 / np.sqrt(case.size) * np.log2(np.e))
    arguments = library.structure(
        Attention, batch=case.batch, keys=case.keys, heads=case.heads, size=case.size, qkv=case.qkv,
        score_scale=case.q_scale * case.k_scale * softmax, value_scale=case.v_scale / case.y_scale,
        mask=mask_of(case), y_zero=case.zero_point, y=guarded,
    )  # fmt: skip
    library.call("attention", arguments)
    assert (guarded[-64:] == 99).all()
    return guarded[:-64].reshape(case.batch, case.keys, case.channels)


def check(library: Emulated, case: Case) -> None:
    """The nearest steps, or those beside them where the real result is within 0.03 of the middle."""
    y = run(library, case)
    np.testing.assert_array_less(np.abs(y.astype(int) - quantize(case.real, float(case.y_scale), case.zero_point)), 2)
    steps = np.clip(case.real / case.y_scale + case.zero_point, 0, 255)
    assert np.abs(y - steps).max(initial=0) <= 0.53


SIZES = [1, 4, 6, 17, 20, 32, 36, 48, 64, 65, 80, 96, 100, 128, 131, 160, 192, 200, 250, 256]
"""Of every kernel and every alignment, and both sides of their limits."""


@pytest.mark.parametrize("size", SIZES)
def test_every_head_size(library: Emulated, order: str, size: int) -> None:
    check(library, Case(1, 21, 2, size))


@pytest.mark.parametrize("keys", [1, 2, 9, 16, 17, 33, 63, 64, 65, 127, 130])
def test_every_number_of_keys(library: Emulated, order: str, keys: int) -> None:
    check(library, Case(1, keys, 2, 32))


@pytest.mark.parametrize("keys", [31, 32, 33, 70])
@pytest.mark.parametrize("size", [192, 256])
def test_large_heads_have_tiles_of_32_keys(library: Emulated, order: str, keys: int, size: int) -> None:
    check(library, Case(1, keys, 1, size))


@pytest.mark.parametrize("size", [7, 32, 44])
def test_batches_and_heads(library: Emulated, order: str, size: int) -> None:
    check(library, Case(3, 70, 3, size))


@pytest.mark.parametrize("spread", [0.01, 5.0, 300.0])
def test_scores_of_any_spread(library: Emulated, spread: float) -> None:
    """From almost the mean of all values to that of one key."""
    check(library, Case(1, 150, 1, 32, spread=spread))


def test_many_keys(library: Emulated) -> None:
    """Without what rounding loses: tails of small probabilities have their mass."""
    check(library, Case(1, 600, 1, 16, spread=3.0))


def test_scores_that_rise_with_every_tile(library: Emulated, order: str) -> None:
    """And fall in another half of the queries: sums are brought to a new greatest score again and again, or never."""
    case = Case(1, 320, 1, 32)
    assert case.qkv is not None
    qkv = case.qkv.copy()
    qkv[:, ::2, :4], qkv[:, 1::2, :4] = 250, 5
    qkv[:, :, 32:36] = np.linspace(0, 255, 320).astype(np.uint8)[:, None]
    for spread in (1.0, 20.0):
        check(library, Case(1, 320, 1, 32, qkv=qkv, spread=spread))


@pytest.mark.parametrize("zero_point", [0, 3, 255])
def test_zero_points(library: Emulated, zero_point: int) -> None:
    check(library, Case(1, 24, 2, 32, zero_point=zero_point))


@pytest.mark.parametrize("size", [32, 37, 256])
def test_the_greatest_products(library: Emulated, size: int) -> None:
    """At 256 the sum of 128 * 128 is the end of what the float that holds it has."""
    corners = 255 * np.random.default_rng(size).integers(0, 2, (1, 70, 3 * size))
    for qkv in (np.zeros((1, 24, 3 * size)), np.full((1, 24, 3 * size), 255), corners):
        check(library, Case(1, qkv.shape[1], 1, size, qkv=qkv.astype(np.uint8), spread=0.1))


@pytest.mark.parametrize("low", [0, 240])
def test_the_zero_point_of_keys_is_taken_off(library: Emulated, low: int) -> None:
    """Products with unsigned keys pass what the float that holds scores has."""
    rng = np.random.default_rng(5)
    qkv = rng.integers(100, 256, (1, 90, 3 * 256)).astype(np.uint8)
    qkv[:, :, :256] = rng.integers(low, low + 16, (1, 90, 256))
    check(library, Case(1, 90, 1, 256, qkv=qkv, spread=0.5))


@pytest.mark.parametrize("kind", ["int64", "int32", "float32", "bool"])
@pytest.mark.parametrize("keys", [20, 133])
def test_masks_that_keep(library: Emulated, order: str, kind: str, keys: int) -> None:
    rng = np.random.default_rng(keys)
    mask = (np.arange(keys) < rng.integers(1, keys, (2, 1))) * (1 if kind == "bool" else -7)
    check(library, Case(2, keys, 1, 32, mask.astype(kind)))
    scattered = (rng.random((2, keys)) < 0.2).astype(kind)
    check(library, Case(2, keys, 1, 20, scattered))


def test_a_query_without_keys_attends_to_all_alike(library: Emulated) -> None:
    check(library, Case(2, 100, 2, 32, np.zeros((2, 100), np.int64)))
    check(library, Case(1, 100, 2, 32, np.full((1, 1, 1, 100), -np.inf, np.float32), adds=True))
    check(library, Case(1, 100, 2, 32, np.full((1, 1, 100, 100), -np.inf, np.float32), adds=True))


def test_keys_after_masked_tiles_are_all_that_counts(library: Emulated, order: str) -> None:
    mask = np.zeros((1, 200), np.int64)
    mask[:, 131:140] = 1
    check(library, Case(1, 200, 1, 32, mask))


@pytest.mark.parametrize("keys", [9, 70])
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("every_query", [False, True])
def test_masks_that_add(library: Emulated, keys: int, batches: int, heads: int, every_query: bool) -> None:
    """The same for all batches, heads or queries, or not."""
    shape = (batches, heads, keys if every_query else 1, keys)
    bias = np.random.default_rng(keys).normal(0, 2, shape).astype(np.float32)
    check(library, Case(2, keys, 3, 32, bias, adds=True))


def test_a_causal_mask(library: Emulated, order: str) -> None:
    hidden = np.where(np.tri(140) > 0, 0, -np.inf).astype(np.float32)[None, None]
    check(library, Case(2, 140, 2, 32, hidden, adds=True))


@pytest.mark.parametrize("rows", [1, 130])
def test_masks_of_any_value(library: Emulated, rows: int) -> None:
    """Not-a-number is as negative infinity; large values round what is added to them, but overflow nothing."""
    rng = np.random.default_rng(rows)
    values = np.array([0, -np.inf, np.finfo(np.float32).min, -10000.0, 2.5], np.float32)
    mask = values[rng.integers(0, 5, (1, 1, rows, 130))]
    mask[..., 7] = 0
    case = Case(1, 130, 1, 32, mask, adds=True)
    check(library, case)
    case.mask = np.where(np.isneginf(mask), np.nan, mask).astype(np.float32)
    np.testing.assert_array_less(np.abs(run(library, case) - case.real / case.y_scale - 128), 0.53)


@pytest.mark.parametrize("rows", [1, 80])
@pytest.mark.parametrize("power", [*range(24, 31), 90])
def test_large_masks_overflow_nothing(library: Emulated, rows: int, power: int) -> None:
    """Scores lose their last places to the mask, and all keys become alike."""
    case = Case(1, 80, 1, 8, spread=1e-6)
    case.mask, case.adds = np.full((1, 1, rows, 80), 2.0**power * 1.1, np.float32), True
    np.testing.assert_array_less(np.abs(run(library, case) - case.real / case.y_scale - 128), 0.53)


@pytest.mark.parametrize("kind", ["keep", "add", "full"])
def test_masked_keys_have_no_influence(library: Emulated, kind: str) -> None:
    kept = np.arange(80) < 23
    added = np.where(kept, 0, -1e9).astype(np.float32)
    mask = {"keep": kept[None], "add": added[None, None, None], "full": np.tile(added, (1, 1, 80, 1))}[kind]
    case = Case(1, 80, 1, 32, mask, adds=kind != "keep")
    one = run(library, case)
    assert case.qkv is not None
    case.qkv[:, 23:, 32:] = 255
    np.testing.assert_array_equal(one, run(library, case))


def test_no_results_need_no_launch(library: Emulated) -> None:
    assert run(library, Case(0, 8, 2, 32)).size == 0
    assert run(library, Case(2, 0, 2, 32)).size == 0
