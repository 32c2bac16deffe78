"""The CUDA linear layer, emulated, against the numpy reference of QLinear."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.activation import ACTIVATIONS
from onnxcompress.ops.qlinear import QLINEAR
from onnxcompress.ops.quantization import quantize
from onnxcompress.ops.row_quantization import quantize_rows_reference
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated
from tests.cuda.linear_case import Case, check_layer, random_layer, run

Array = np.ndarray[Any, Any]

BINDINGS = """
#include <vector>
#include "cuda/linear.hpp"
#include "cuda/linear_pack.hpp"
#include "cuda/quantize.hpp"
using namespace oc::cuda;

// What a caller does: pack, ask for scratch, launch.
static void run_linear(const int8_t* w, Linear& layer, int32_t* weight_sums, int* plan) {
  std::vector<int8_t> weights(packed_linear_bytes(layer.n, layer.k));  // from malloc: aligned to 16
  pack_linear(w, layer.n, layer.k, weights.data(), weight_sums);
  const size_t bytes = linear_scratch_bytes(layer.m, layer.n, layer.k, layer.multiprocessors);
  std::vector<int32_t> scratch(bytes / 4, -1);
  layer.weights = weights.data(), layer.scratch = scratch.data();
  const LinearPlan chosen = plan_linear(layer.m, layer.n, layer.k, layer.multiprocessors);
  plan[0] = chosen.kernel, plan[1] = chosen.slices;
  linear(layer, nullptr);
}
static void plan(int64_t m, int n, int k, int multiprocessors, int64_t* facts) {
  const LinearPlan chosen = plan_linear(m, n, k, multiprocessors);
  facts[0] = chosen.kernel, facts[1] = chosen.slices;
  facts[2] = static_cast<int64_t>(linear_scratch_bytes(m, n, k, multiprocessors));
}
static void run_quantize(const Quantize& arguments) { quantize(arguments, nullptr); }
static void run_quantize_rows(const QuantizeRows& arguments) { quantize_rows(arguments, nullptr); }
OC_EXPORT(linear, run_linear)
OC_EXPORT(plan, plan)
OC_EXPORT(pack, pack_linear)
OC_EXPORT(quantize, run_quantize)
OC_EXPORT(quantize_rows, run_quantize_rows)
OC_EXPORT_SIZE(Linear)
OC_EXPORT_SIZE(Epilogue)
OC_EXPORT_SIZE(Quantize)
OC_EXPORT_SIZE(QuantizeRows)
"""

FEW_ROWS, TILE_64, TILE_128, TILE_256 = range(4)


class Quantize(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("inverse", ctypes.c_float),
        ("zero", ctypes.c_int),
    )


class QuantizeRows(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "inverse", "table", "y", "row_scale", "row_zero")),
        ("m", ctypes.c_int64),
        ("n", ctypes.c_int),
    )


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("linear", ["cuda/linear.cu", "cuda/linear_pack.cpp", "cuda/quantize.cu"], BINDINGS)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 1), (1, 40, 96), (3, 41, 100), (8, 64, 1024), (9, 77, 560), (15, 33, 1531), (16, 130, 64)],
)
def test_few_rows(library: Emulated, order: str, m: int, n: int, k: int, wide: bool) -> None:
    case = Case(m, n, k, processors=1 if wide else 1000, floats=n == 40)
    assert check_layer(library, "linear", case) == (FEW_ROWS, 1)


@pytest.mark.parametrize(
    ("case", "plan"),
    [
        (Case(250, 500, 16 * 29), (TILE_256, 1)),
        (Case(129, 700, 32, processors=2, floats=True), (TILE_256, 1)),
        (Case(250, 380, 16 * 27), (TILE_128, 1)),
        (Case(130, 127, 16, floats=True), (TILE_128, 1)),
        (Case(50, 70, 16 * 21), (TILE_64, 1)),
        (Case(17, 30, 64), (TILE_64, 1)),
        (Case(65, 64, 99), (TILE_64, 1)),
        (Case(33, 101, 1, floats=True), (TILE_64, 1)),
        (Case(590, 130, 16, processors=500), (TILE_64, 1)),  # more than one group of tiles
        (Case(20, 32, 1040, processors=8), (TILE_64, 4)),
        (Case(66, 31, 530, processors=8, floats=True), (TILE_64, 2)),
    ],
    ids=lambda value: f"{value.m}x{value.n}x{value.k}" if isinstance(value, Case) else "",
)
def test_tiles(library: Emulated, order: str, case: Case, plan: tuple[int, int]) -> None:
    assert check_layer(library, "linear", case) == plan


OPTIONS = (
    Case(0, 0, 0, bias=False),
    *(Case(0, 0, 0, activation=activation) for activation in ACTIVATIONS[1:]),
    Case(0, 0, 0, residual=True, floats=True, activation="gelu"),
    Case(0, 0, 0, residual=True, table=True),
    Case(0, 0, 0, rows=True, y_vector=True),
    Case(0, 0, 0, rows=True, floats=True, residual=True, bias=False, activation="silu"),
    Case(0, 0, 0, table=True, activation="hardswish", y_vector=True),
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("m", "n", "k", "processors"), [(5, 44, 80, 1), (70, 90, 48, 1), (40, 36, 528, 6)], ids=["few", "tile", "slices"]
)
def test_epilogues(library: Emulated, m: int, n: int, k: int, processors: int, options: Case) -> None:
    case = Case(**{**vars(options), "m": m, "n": n, "k": k, "processors": processors})
    _, slices = check_layer(library, "linear", case)
    assert (slices > 1) == (processors > 1)


def test_no_rows_need_no_launch(library: Emulated) -> None:
    y, _ = run(library, "linear", random_layer(Case(0, 8, 16)))
    assert y.shape == (0, 8)


@pytest.mark.parametrize("m", [2, 20])
def test_sums_at_the_ends_of_their_range_do_not_overflow(library: Emulated, m: int) -> None:
    """255 * 128 * K, and a zero point whose product with the weights' sum has the same size."""
    layer = random_layer(Case(m, 9, 4000, floats=True))
    layer.x[:], layer.x[1] = 255, 0
    layer.w[:5], layer.w[5:] = -128, 127
    layer.x_zero = np.asarray(255, np.uint8)
    y, _ = run(library, "linear", layer)
    np.testing.assert_allclose(y, layer.reference(False), rtol=1e-6, atol=1e-6)


def test_weights_are_packed_in_slabs(library: Emulated) -> None:
    w = np.random.default_rng(0).integers(-128, 128, (21, 130)).astype(np.int8)
    packed, sums = np.full(3 * 3 * 512, 99, np.int8), np.zeros(21, np.int32)
    library.call("pack", w, 21, 130, packed, sums)
    padded = np.pad(w, ((0, 3), (0, 62)))
    np.testing.assert_array_equal(packed.reshape(3, 3, 8, 64), padded.reshape(3, 8, 3, 64).transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(sums, w.sum(axis=1, dtype=np.int32))


def test_plans_fill_the_device(library: Emulated) -> None:
    def plan(m: int, n: int, k: int) -> list[int]:
        facts = np.zeros(3, np.int64)
        library.call("plan", m, n, k, 132, facts)
        return [int(fact) for fact in facts]

    assert plan(4096, 4096, 4096) == [TILE_256, 1, 0]
    assert plan(4096, 4096, 4095)[0] == TILE_64
    assert plan(16, 4096, 4096) == [FEW_ROWS, 1, 0]
    assert plan(17, 768, 3072) == [TILE_64, 12, 12 * 17 * 768 * 4]
    assert plan(17, 768, 65) == [TILE_64, 1, 0]
    assert plan(2**33, 64, 64)[0] != FEW_ROWS


@pytest.mark.parametrize("count", [0, 1, 6, 1024, 4099])
def test_floats_are_quantized(library: Emulated, order: str, count: int) -> None:
    x = np.random.default_rng(count).normal(0, 3, count).astype(np.float32)
    x[5:8] = np.array([np.nan, np.inf, -np.inf])[: max(0, count - 5)]
    y, scale = np.zeros(count, np.uint8), 0.05
    library.call("quantize", library.structure(Quantize, x=x, y=y, count=count, inverse=1 / scale, zero=120))
    expected = quantize(x, scale, 120).astype(int)
    assert (np.abs(y - expected) <= 1).all() and (y != expected).mean() <= 1e-3 if count else True
    np.testing.assert_array_equal(y[5:8], expected[5:8])


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize(("m", "n"), [(0, 5), (1, 1), (11, 47), (9, 132), (3, 1030), (2, 2052)])
def test_rows_are_quantized_by_their_own_ranges(library: Emulated, order: str, m: int, n: int, table: bool) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(0, 1, (m, n)).astype(np.float32) * rng.uniform(0.1, 10, (m, 1)).astype(np.float32)
    x[2:4] = np.abs(x[2:4])
    x[4:5] = 0
    scales = rng.uniform(0.5, 2, n).astype(np.float32)
    lookup = np.arange(255, -1, -1).astype(np.uint8)
    y, scale, zero = np.zeros((m, n), np.uint8), np.zeros((m, 1), np.float32), np.zeros((m, 1), np.uint8)
    smooth: dict[str, Any] = {"inverse": (1 / scales).astype(np.float32), "table": lookup} if table else {}
    library.call(
        "quantize_rows",
        library.structure(QuantizeRows, x=x, y=y, row_scale=scale, row_zero=zero, m=m, n=n, **smooth),
    )
    expected = quantize_rows_reference(x.astype(np.float64) / scales if table else x.astype(np.float64))
    np.testing.assert_allclose(scale, expected[1], rtol=1e-6)
    assert (np.abs(zero.astype(int) - expected[2]) <= 1).all()
    steps = lookup[expected[0]] if table else expected[0]
    assert (np.abs(y.astype(int) - steps) <= 1).all()
    assert (y != steps).mean() < 1e-2 if m else True


def test_a_dynamic_layer_is_two_launches(library: Emulated) -> None:
    layer = random_layer(Case(19, 70, 96, activation="gelu", floats=True))
    real, _ = run(library, "linear", layer)
    y, scale, zero = np.zeros((19, 70), np.uint8), np.zeros((19, 1), np.float32), np.zeros((19, 1), np.uint8)
    library.call(
        "quantize_rows", library.structure(QuantizeRows, x=real, y=y, row_scale=scale, row_zero=zero, m=19, n=70)
    )
    inputs = [layer.x, layer.x_scale, layer.x_zero, layer.w, layer.w_scale, layer.bias, None, None, None, None]
    expected_y, _, expected_scale, expected_zero = QLINEAR.reference({"activation": "gelu", "dynamic": 1}, *inputs)
    assert expected_y is not None and expected_scale is not None and expected_zero is not None
    np.testing.assert_allclose(scale, expected_scale, rtol=1e-5)
    np.testing.assert_array_equal(zero, expected_zero)
    assert (np.abs(y.astype(int) - expected_y) <= 1).all()
