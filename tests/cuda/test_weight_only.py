"""CUDA layers of 4- and 8-bit weights, emulated, against their definition in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.ops.activation import ACTIVATIONS
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated
from tests.cuda.weight_only_case import BINDINGS, Array, Case, Matrix, check_layer, random_matrix, run


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("weight_only", ["cuda/weight_only.cu", "cuda/weight_only_pack.cpp"], BINDINGS)


FEW = [
    Case(1, 1, 1),
    Case(1, 40, 200),
    Case(1, 33, 1000, block=128, zero_points=True),
    Case(2, 18, 264, block=64),
    Case(3, 50, 321, zero_points=True),
    Case(4, 32, 64, bits=8, block=0, signed=True),
    Case(5, 70, 72, bits=8, zero_points=True),
    Case(7, 9, 129, bits=8, block=64, signed=True, zero_points=True),
    Case(8, 65, 136, block=64, half_scales=False),
    Case(9, 131, 100, block=0),
    Case(16, 20, 328, bits=8, block=128),
]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_few_rows(library: Emulated, order: str, case: Case) -> None:
    tile_rows, splits = check_layer(library, case)
    assert tile_rows == next(rows for rows in (2, 4, 8, 16) if rows >= case.m)
    assert splits == 1


TILES = [
    (Case(17, 33, 72), 32),
    (Case(32, 130, 40, bits=8, block=0, signed=True), 32),
    (Case(31, 129, 200, block=64, zero_points=True), 32),
    (Case(33, 20, 1, bits=8), 64),
    (Case(63, 140, 260, bits=8, block=128, zero_points=True), 64),
    (Case(70, 17, 331, block=128), 64),
    (Case(129, 131, 136, zero_points=True, floats=False), 128),
    (Case(100, 24, 264, bits=8, half_scales=False), 128),
]


@pytest.mark.parametrize(("case", "tile"), TILES, ids=str)
def test_tiles(library: Emulated, order: str, case: Case, tile: int) -> None:
    assert check_layer(library, case) == (tile, 1)


@pytest.mark.parametrize(
    ("case", "plan"),
    [
        (Case(1, 20, 4200, floats=False, gated=True, activation="silu", processors=100), (2, 3)),
        (Case(5, 66, 1100, bits=8, bias=True, processors=100), (8, 3)),
        (Case(16, 130, 1100, zero_points=True), (16, 2)),  # more of x than shared memory holds
        (Case(40, 130, 1100, block=128, residual=True, processors=100), (64, 3)),
        (Case(24, 22, 1032, bits=8, gated=True, activation="silu", floats=False, processors=100), (32, 3)),
    ],
    ids=str,
)
def test_splits_of_k(library: Emulated, order: str, case: Case, plan: tuple[int, int]) -> None:
    assert check_layer(library, case) == plan


@pytest.mark.parametrize("m", [3, 16, 20])
@pytest.mark.parametrize("floats", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_epilogues(library: Emulated, m: int, floats: bool, activation: str) -> None:
    for gated in (False, True):
        check_layer(
            library, Case(m, 37, 96, bias=True, residual=True, activation=activation, floats=floats, gated=gated)
        )


@pytest.mark.parametrize("m", [2, 30])
@pytest.mark.parametrize(("n", "gated"), [(32, False), (31, False), (32, True), (34, True)])
def test_outputs_of_every_alignment(library: Emulated, order: str, m: int, n: int, gated: bool) -> None:
    for floats in (True, False):
        check_layer(library, Case(m, n, 64, gated=gated, residual=True, floats=floats))


@pytest.mark.parametrize("m", [2, 30])
@pytest.mark.parametrize("n", [31, 32])
def test_residuals_in_floats(library: Emulated, order: str, m: int, n: int) -> None:
    """They are not rounded to halves."""
    for gated in (False, True):
        check_layer(library, Case(m, n, 64, gated=gated, residual=True, float_residual=True))


@pytest.mark.parametrize("m", [1, 20])
@pytest.mark.parametrize("k", [40, 41])
def test_rows_of_x_that_are_not_there_are_not_read(library: Emulated, m: int, k: int) -> None:
    """Beyond the last row and the last k there is not-a-number."""
    case = Case(m, 24, k)
    rng = np.random.default_rng(0)
    x = np.full((m + 20, k), np.nan, np.float16)
    x[:m] = rng.normal(0, 1, (m, k))
    y, _ = run(library, case, [random_matrix(case, rng)], x)
    assert np.isfinite(y).all()


def test_only_rows_that_are_not_numbers_become_so(library: Emulated) -> None:
    for m in (4, 40):
        case = Case(m, 24, 104)
        rng = np.random.default_rng(1)
        x = rng.normal(0, 1, (m, 104)).astype(np.float16)
        x[2, 103] = np.nan
        y, _ = run(library, case, [random_matrix(case, rng)], x)
        assert np.isnan(y[2]).all() and np.isfinite(np.delete(y, 2, axis=0)).all()


def test_no_rows_need_no_launch(library: Emulated) -> None:
    case = Case(0, 8, 64)
    y, _ = run(library, case, [random_matrix(case, np.random.default_rng(0))], np.zeros((0, 64), np.float16))
    assert y.shape == (0, 8)


@pytest.mark.parametrize("m", [1, 33])
def test_scales_beyond_halves(library: Emulated, m: int) -> None:
    """Rows whose scales halves could not hold, and a row of zeros."""
    case = Case(m, 20, 96)
    rng = np.random.default_rng(3)
    matrix = random_matrix(case, rng)
    factors = np.float32(2) ** np.resize([-40, 0, 30, -20], 20).astype(np.float32)
    x = rng.normal(0, 1, (m, 96)).astype(np.float16)
    y, _ = run(library, case, [matrix], x)
    scaled, _ = run(library, case, [Matrix(case, matrix.codes, matrix.scale * factors[:, None], None)], x)
    np.testing.assert_array_equal(scaled, y * factors)
    matrix.scale[5] = 0
    y, _ = run(library, case, [matrix], x)
    assert (y[:, 5] == 0).all()


@pytest.mark.parametrize("case", [Case(1, 21, 100, zero_points=True), Case(1, 19, 70, bits=8, block=64)], ids=str)
def test_the_packed_layout(library: Emulated, case: Case) -> None:
    matrix = random_matrix(case, np.random.default_rng(5))
    tiles, steps, words_each = 2, 2, case.bits // 4
    words = np.zeros((tiles, steps, 2, 8, 4, 2, words_each), np.uint32)
    scale = np.zeros((tiles, case.blocks, 8, 2), np.float16)
    zero_point = np.zeros((tiles, case.blocks, 8, 2), np.uint8)
    channel = np.zeros(tiles * 16, np.float32)
    library.call("pack", matrix.source(library), words, scale, zero_point, channel)

    def by_rows(packed: Array) -> Array:
        """[tile, ..., g, row] to [n, ...]: n = 4 (g / 2) + 2 row + g % 2."""
        split = packed.reshape(*packed.shape[:-2], 4, 2, 2).swapaxes(-1, -2)
        return np.moveaxis(split.reshape(*packed.shape[:-2], 16), -1, 1).reshape(tiles * 16, *packed.shape[1:-2])

    places = [4 * (i // 2) + 16 * (i % 2) for i in range(8)] if case.bits == 4 else [0, 16, 8, 24]
    codes = np.stack([words >> place & (2**case.bits - 1) for place in places], axis=-1)  # ..., word, code
    codes = codes.reshape(tiles, steps, 2, 8, 4, 2, 8).transpose(0, 1, 2, 4, 6, 3, 5)
    unpacked = by_rows(codes).reshape(tiles * 16, steps * 64)
    np.testing.assert_array_equal(unpacked[: case.n, : case.k], matrix.codes)
    scales = by_rows(scale).astype(np.float32) * channel[:, None]
    np.testing.assert_array_equal(scales[: case.n], matrix.scale)
    assert (scales[case.n :] == 0).all()
    if matrix.zero_point is not None:
        np.testing.assert_array_equal(by_rows(zero_point)[: case.n], matrix.zero_point)


def test_plans_fill_the_device(library: Emulated) -> None:
    def plan(m: int, n: int, k: int) -> list[int]:
        facts = np.zeros(4, np.int64)
        library.call("plan", m, n, k, 132, facts)
        return [int(fact) for fact in facts]

    assert plan(1, 4096, 4096) == [2, 1, 0, 0]
    assert plan(1, 1024, 4096) == [2, 2, 64 * 2 * 512, 64]
    assert plan(16, 4096, 14336)[:2] == [16, 15]
    assert plan(4096, 4096, 4096) == [128, 1, 0, 0]
    assert plan(4096, 4096, 4095)[0] == 64
    assert plan(64, 4096, 4096) == [64, 8, 32 * 8 * 64 * 128, 32]
    assert plan(256, 4096, 4096)[0] == 64
