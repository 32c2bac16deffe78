"""The CUDA linear layer with 2:4 sparse weights, emulated, against the numpy reference of QLinear."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated, EmulationError
from tests.cuda.linear_case import Case, check_layer, random_layer, run

Array = np.ndarray[Any, Any]

BINDINGS = """
#include <stdexcept>
#include <vector>
#include "cuda/sparse24.hpp"
#include "cuda/sparse24_pack.hpp"
using namespace oc::cuda;

// What a caller does: pack, ask for scratch, launch.
static void run_sparse24(const int8_t* w, Linear& layer, int32_t* weight_sums, int* plan) {
  std::vector<int8_t> weights(packed_sparse24_bytes(layer.n, layer.k));  // from malloc: aligned to 16
  if (!pack_sparse24(w, layer.n, layer.k, weights.data(), weight_sums)) throw std::runtime_error("not 2:4 sparse");
  const size_t bytes = linear_scratch_bytes(layer.m, layer.n, layer.k, layer.multiprocessors);
  std::vector<int32_t> scratch(bytes / 4, -1);
  layer.weights = weights.data(), layer.scratch = scratch.data();
  const LinearPlan chosen = plan_linear(layer.m, layer.n, layer.k, layer.multiprocessors);
  plan[0] = chosen.kernel, plan[1] = chosen.slices;
  sparse24(layer, nullptr);
}
OC_EXPORT(sparse24, run_sparse24)
OC_EXPORT_SIZE(Linear)
OC_EXPORT_SIZE(Epilogue)
"""

SOURCES = ["cuda/sparse24.cu", "cuda/sparse24_pack.cpp", "cuda/linear.cu"]
FEW_ROWS, TILE_64, TILE_128, TILE_256 = range(4)


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("sparse24", SOURCES, BINDINGS)


def sparse_weights(n: int, k: int, kept: tuple[int, ...] = (0, 1, 2)) -> Array:
    """Random weights with as many of every four not zero as `kept` allows, in random columns."""
    rng = np.random.default_rng(n + k)
    groups = -(-k // 4)
    order = np.argsort(rng.random((n, groups, 4)), axis=-1)
    mask = order < rng.choice(kept, (n, groups, 1))
    values = rng.integers(1, 128, (n, groups, 4)) * rng.choice([-1, 1], (n, groups, 4))
    return np.ascontiguousarray(np.where(mask, values, 0).astype(np.int8).reshape(n, groups * 4)[:, :k])


def check(library: Emulated, case: Case, kept: tuple[int, ...] = (0, 1, 2)) -> tuple[int, int]:
    return check_layer(library, "sparse24", case, sparse_weights(case.n, case.k, kept))


@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 1, 1), (1, 40, 96), (3, 41, 102), (8, 64, 1024), (9, 77, 560), (15, 33, 1531), (16, 16, 64)]
)
def test_few_rows(library: Emulated, order: str, m: int, n: int, k: int) -> None:
    assert check(library, Case(m, n, k, floats=n == 40)) == (FEW_ROWS, 1)


@pytest.mark.parametrize(
    ("case", "plan"),
    [
        (Case(250, 500, 16 * 29), (TILE_256, 1)),
        (Case(250, 380, 16 * 27), (TILE_128, 1)),
        (Case(130, 127, 16, floats=True), (TILE_128, 1)),
        (Case(50, 70, 16 * 21), (TILE_64, 1)),
        (Case(65, 64, 99), (TILE_64, 1)),
        (Case(590, 130, 16, processors=500), (TILE_64, 1)),  # more than one group of tiles
        (Case(20, 32, 1040, processors=8), (TILE_64, 4)),
        (Case(66, 31, 530, processors=8, floats=True), (TILE_64, 2)),
    ],
    ids=lambda value: f"{value.m}x{value.n}x{value.k}" if isinstance(value, Case) else "",
)
def test_tiles(library: Emulated, order: str, case: Case, plan: tuple[int, int]) -> None:
    assert check(library, case) == plan


@pytest.mark.parametrize("kept", [(0,), (1,), (2,)])
def test_every_pair_of_columns(library: Emulated, kept: tuple[int, ...]) -> None:
    check(library, Case(20, 32, 192, floats=True), kept)


@pytest.mark.parametrize("m", [6, 40])
def test_epilogue(library: Emulated, m: int) -> None:
    check(library, Case(m, 52, 80, activation="gelu", residual=True, rows=True, table=True, y_vector=True))


@pytest.mark.parametrize("column", [0, 5, 62, 129])
def test_three_of_four_are_refused(library: Emulated, column: int) -> None:
    w = sparse_weights(20, 131)
    w[17, column // 4 * 4 : column // 4 * 4 + 3] = 1
    with pytest.raises(EmulationError, match="not 2:4"):
        run(library, "sparse24", random_layer(Case(2, 20, 131), w))


def test_no_rows_need_no_launch(library: Emulated) -> None:
    y, _ = run(library, "sparse24", random_layer(Case(0, 8, 16), sparse_weights(8, 16)))
    assert y.shape == (0, 8)
