"""The CUDA linear layers with block-sparse weights, emulated, against numpy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.activation import ACTIVATIONS
from onnxcompress.ops.blocks import BLOCK_ROWS, to_blocks
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated
from tests.cuda.epilogue import Epilogue, activation_number, epilogue_reference
from tests.cuda.test_convolution import aligned, check_guards, guarded

Array = np.ndarray[Any, Any]

BINDINGS = """
#include <algorithm>
#include "cuda/block_sparse.hpp"
#include "cuda/block_sparse_panels.hpp"
using namespace oc::cuda;

// form: 0 the weights as they are, 1 panels, 2 both. `values_out` null, or room for the panels' first bytes.
static void multiply(BlockSparseLinear& c, int64_t form, int32_t* weight_sums, int64_t* groups) {
  sum_block_sparse(c.weights, weight_sums);
  const BlockSparsePanels panels = pack_block_sparse(c.weights);
  std::vector<int4> values(panels.values.size() / 16 + 1);
  std::copy(panels.values.begin(), panels.values.end(), reinterpret_cast<int8_t*>(values.data()));
  std::vector<int4> columns(panels.columns.size() / 16 + 1);
  std::copy(panels.columns.begin(), panels.columns.end(), reinterpret_cast<uint8_t*>(columns.data()));
  *groups = static_cast<int64_t>(panels.groups());
  if (form >= 1) {
    c.panels = {panels.starts.data(), reinterpret_cast<const int8_t*>(values.data()),
                reinterpret_cast<const uint8_t*>(columns.data()), panels.panels, panels.chunks, *groups};
  }
  if (form == 1) c.weights.values = nullptr;
  block_sparse_linear(c, nullptr);
}

// Columns of the packed groups, in their order, as columns of the matrix [groups, 8]; -1 for blocks of zeros.
static void packed_columns(const BlockSparseWeights& weights, int32_t* columns) {
  const BlockSparsePanels panels = pack_block_sparse(weights);
  for (int i = 0; i < panels.panels * panels.chunks; ++i) {
    for (int group = panels.starts[i]; group < panels.starts[i + 1]; ++group) {
      for (int block = 0; block < 8; ++block) {
        bool empty = true;
        for (int row = 0; row < 8; ++row) {
          for (int byte = 0; byte < 8; ++byte) {
            const int at = ((group * 32 + row * 4 + block % 4) * 4 + block / 4 * 2) * 4;
            empty = empty && panels.values[at + byte] == 0;
          }
        }
        const int column = i % panels.chunks * kChunkColumns + panels.columns[group * 8 + block % 4 * 2 + block / 4];
        columns[group * 8 + block] = empty ? -1 : column;
      }
    }
  }
}
// Where words of x lie in shared memory, in the tile of so many rows.
static void stage_words(int64_t tokens, int64_t count, const int32_t* columns, const int32_t* rows, int32_t* words) {
  for (int64_t i = 0; i < count; ++i) {
    words[i] = tokens == 64 ? block_sparse::stage_word<block_sparse::PanelTile<64, 8, 2, 1>>(columns[i], rows[i])
                            : block_sparse::stage_word<block_sparse::PanelTile<32, 4, 1, 2>>(columns[i], rows[i]);
  }
}
OC_EXPORT(stage_words, stage_words)
OC_EXPORT(multiply, multiply)
OC_EXPORT(packed_columns, packed_columns)
OC_EXPORT_SIZE(BlockSparseWeights)
OC_EXPORT_SIZE(BlockSparseLinear)
OC_EXPORT_SIZE(Epilogue)
"""

ROWS, PANELS, BOTH = 0, 1, 2


class BlockSparseWeights(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("outputs", "depth", "block_rows")),
        *((name, ctypes.c_void_p) for name in ("values", "row_start", "column")),
    )


class Panels(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("starts", "values", "columns")),
        *((name, ctypes.c_int) for name in ("panels", "chunks")),
        ("groups", ctypes.c_int64),
    )


class BlockSparseLinear(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("rows", ctypes.c_int),
        ("weights", BlockSparseWeights),
        ("blocks", ctypes.c_int64),
        ("panels", Panels),
        ("multiprocessors", ctypes.c_int),
        ("epilogue", Epilogue),
    )


class Problem:
    """Random x [M, K] and w [N, K] with a share of its blocks. Scales are powers of 2, so that results are exact."""

    def __init__(self, m: int, n: int, k: int, block_rows: int, density: float = 0.3, seed: int = 0) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.block_rows = block_rows
        self.x = aligned(rng.integers(0, 256, (m, k)).astype(np.uint8))
        self.x_zero = int(rng.integers(1, 256))
        grid = rng.random((-(-n // block_rows), -(-k // 4))) < density
        mask = grid.repeat(block_rows, 0).repeat(4, 1)[:n, :k]
        self.w = np.where(mask, rng.integers(-128, 128, (n, k)), 0).astype(np.int8)
        self.scale = (2.0 ** rng.integers(-12, -9, n)).astype(np.float32)
        self.bias = (rng.integers(-64, 64, n) / 16).astype(np.float32)

    def real(self) -> Array:
        sums = (self.x.astype(np.float64) - self.x_zero) @ self.w.T.astype(np.float64)
        return sums * self.scale + self.bias

    def weights(self, library: Emulated, garbage: bool = True) -> BlockSparseWeights:
        """The blocks of w; what lies beyond N and K is not zero, which must not matter."""
        (n, k), rows = self.w.shape, self.block_rows
        values, row_start, column = to_blocks(self.w, rows)
        if garbage:
            row = np.repeat(np.arange(len(row_start) - 1), np.diff(row_start))
            beyond = (row[:, None, None] * rows + np.arange(rows)[:, None] >= n) | (
                column[:, None, None] * 4 + np.arange(4) >= k
            )
            values = np.where(beyond, np.int8(77), values)
        return library.structure(
            BlockSparseWeights,
            **{"outputs": n, "depth": k, "block_rows": rows},
            **{"values": aligned(values), "row_start": row_start, "column": column},
        )

    def run(self, library: Emulated, form: int, fields: dict[str, Any], processors: int = 1, bias: bool = True) -> int:
        """The kernel; the results are in fields["y"] or fields["y_float"]. Returns how many groups panels have."""
        n = self.w.shape[0]
        sums, groups = np.zeros(n, np.int32), np.zeros(1, np.int64)
        weights = self.weights(library)
        epilogue = library.structure(
            Epilogue,
            **{"columns": n, "x_zero": self.x_zero, "weight_sums": sums, "scale": self.scale},
            **({"bias": self.bias} if bias else {}),
            **fields,
        )
        blocks = len(weights.kept_alive["column"])
        c = library.structure(
            BlockSparseLinear,
            **{"x": self.x, "rows": len(self.x), "weights": weights, "blocks": blocks},
            **{"multiprocessors": processors, "epilogue": epilogue},
        )
        library.call("multiply", c, form, sums, groups)
        np.testing.assert_array_equal(sums, self.w.astype(np.int32).sum(axis=1))
        return int(groups[0])

    def check(self, library: Emulated, form: int, processors: int = 1) -> None:
        y, room = guarded(len(self.x) * len(self.w), np.uint8)
        fields = {"y": y, "y_inverse": 2.0, "y_zero": 119}
        self.run(library, form, fields, processors)
        np.testing.assert_array_equal(y.reshape(len(self.x), len(self.w)), epilogue_reference(self.real(), fields))
        check_guards(room, y.size)


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("block_sparse", ["cuda/block_sparse.cu", "cuda/block_sparse_pack.cpp"], BINDINGS)


SIZES = {
    "whole": (64, 64, 64),
    "ragged": (37, 41, 75),
    "one": (1, 1, 1),
    "wide": (5, 300, 36),
    "more than a tile": (70, 270, 68),
    "deep": (9, 20, 1100),
    "deep and ragged": (33, 17, 1031),
}


@pytest.mark.parametrize("block_rows", BLOCK_ROWS)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("tile", ["large", "small"])
def test_panels(library: Emulated, order: str, name: str, block_rows: int, tile: str) -> None:
    Problem(*SIZES[name], block_rows).check(library, PANELS, processors=1 if tile == "large" else 132)


@pytest.mark.parametrize("block_rows", BLOCK_ROWS)
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 19])
@pytest.mark.parametrize("size", [(64, 64), (41, 75), (1, 1), (38, 530)])
def test_rows(library: Emulated, order: str, rows: int, size: tuple[int, int], block_rows: int) -> None:
    Problem(rows, *size, block_rows, density=0.6).check(library, ROWS)


@pytest.mark.parametrize("rows", [2, 8])
def test_depths_that_shared_memory_holds_for_fewer_rows(library: Emulated, rows: int) -> None:
    Problem(rows, 8, 12300 if rows == 2 else 6160, 4, density=0.05).check(library, ROWS)


@pytest.mark.parametrize("form", [ROWS, PANELS])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_no_blocks_and_all_blocks(library: Emulated, form: int, density: float) -> None:
    Problem(6, 40, 52, 4, density).check(library, form)


def test_no_rows(library: Emulated) -> None:
    Problem(0, 16, 16, 4).check(library, BOTH)


@pytest.mark.parametrize(("rows", "block_rows", "density"), [(4, 4, 0.3), (40, 16, 0.3), (40, 1, 0.002)])
def test_either_form_will_do(library: Emulated, rows: int, block_rows: int, density: float) -> None:
    """By few rows, by many, and by panels that would be zeros for the most part."""
    Problem(rows, 64, 256, block_rows, density).check(library, BOTH)


@pytest.mark.parametrize("form", [ROWS, PANELS])
@pytest.mark.parametrize("kind", ["table", "residual", "float", "float with residual", "by rows", "unaligned"])
@pytest.mark.parametrize("n", [48, 35])
def test_epilogues(library: Emulated, order: str, form: int, kind: str, n: int) -> None:
    problem = Problem(7, n, 40, 4, seed=1)
    rng, shape = problem.rng, (7, n)
    offset = 1 if kind == "unaligned" else 0
    floats = kind.startswith("float")
    y, room = guarded(7 * n, np.float32 if floats else np.uint8, offset)
    fields: dict[str, Any] = {"y_float": y} if floats else {"y": y, "y_inverse": 2.0, "y_zero": 119}
    if kind == "table":
        fields["table"] = rng.permutation(256).astype(np.uint8)
    if kind in ("residual", "float with residual"):
        fields["residual_float"] = aligned((rng.integers(-512, 512, shape) / 8).astype(np.float32))
    real = problem.real()
    if kind == "by rows":
        fields["row_scale"] = (2.0 ** rng.integers(-2, 2, 7)).astype(np.float32)
        fields["row_zero"] = rng.integers(0, 256, 7).astype(np.uint8)
        centred = problem.x.astype(np.float64) - fields["row_zero"][:, None]
        real = centred @ problem.w.T.astype(np.float64) * problem.scale * fields["row_scale"][:, None] + problem.bias
    problem.run(library, form, fields, processors=132)
    np.testing.assert_array_equal(y.reshape(shape), epilogue_reference(real, fields).astype(y.dtype))
    check_guards(room, y.size, offset)


@pytest.mark.parametrize("form", [ROWS, PANELS])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(library: Emulated, form: int, activation: str) -> None:
    problem = Problem(12, 48, 40, 4, seed=2)
    y, _ = guarded(12 * 48, np.uint8)
    fields = {"y": y, "y_inverse": 8.0, "y_zero": 60, "activation": activation_number(activation)}
    problem.run(library, form, fields)
    expected = epilogue_reference(problem.real(), fields, activation).astype(int)
    difference = np.abs(y.reshape(expected.shape).astype(int) - expected)
    # A byte may differ by one where the activation's rounding crosses the middle between two.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.005
    assert len(np.unique(y)) > 50


@pytest.mark.parametrize("block_rows", BLOCK_ROWS)
def test_panels_hold_each_column_once_and_spread_their_classes(library: Emulated, block_rows: int) -> None:
    problem = Problem(1, 16, 1024, block_rows, density=0.4, seed=3)
    weights = problem.weights(library, garbage=False)
    groups = problem.run(library, PANELS, {"y_float": np.zeros(16, np.float32)})
    columns = np.zeros((groups, 8), np.int32)
    library.call("packed_columns", weights, columns)
    present = np.asarray(np.any(problem.w.reshape(16, 256, 4), axis=(0, 2)))
    assert sorted(columns[columns >= 0]) == list(np.nonzero(present)[0])
    assert groups <= -(-present[:128].sum() // 8) + -(-present[128:].sum() // 8)
    classes = columns & 1 | ((columns >> 1 ^ columns >> 2) & 1) << 1
    fours, whole = classes.reshape(-1, 4), np.all(columns.reshape(-1, 4) >= 0, axis=1)
    different = np.array([len(set(four)) == 4 for four in fours])
    assert np.mean(different, where=whole) > 0.75


@pytest.mark.parametrize("tokens", [32, 64])
def test_no_bank_conflicts_in_shared_memory(library: Emulated, tokens: int) -> None:
    """Eight lanes that read 16 bytes each, and 32 that write 4, meet every one of the 32 banks once."""
    rng = np.random.default_rng(0)

    def words(columns: Array, rows: Array) -> Array:
        found = np.zeros(columns.shape, np.int32)
        given = [np.ascontiguousarray(a, np.int32) for a in np.broadcast_arrays(columns, rows)]
        library.call("stage_words", tokens, found.size, *given, found)
        return found

    everywhere = words(*np.meshgrid(np.arange(128), np.arange(tokens), indexing="ij"))
    assert sorted(everywhere.ravel()) == list(range(128 * tokens))
    of_class = [[c for c in range(128) if (c & 1 | ((c >> 1 ^ c >> 2) & 1) << 1) == k] for k in range(4)]
    for _ in range(20):
        columns = np.array([rng.choice(of_class[k]) for k in rng.permutation(4)])
        for g in range(0, 8, 2):
            for half in range(tokens // 32):
                lanes = np.arange(8)
                read = words(columns[lanes % 4], (g + lanes // 4) * (tokens // 8) + half * 4)
                assert (read % 4 == 0).all() and len(set(read // 4 % 8)) == 8
    lanes = np.arange(32)
    for piece in range(0, 32, 2):
        for first in range(0, tokens, 16):
            for word in range(4):
                written = words((piece + lanes // 16) * 4 + word, first + lanes % 16)
                assert len(set(written % 32)) == 32


def test_extreme_values(library: Emulated) -> None:
    for form in (ROWS, PANELS):
        problem = Problem(3, 4, 4096, 4, density=1)
        problem.x[:] = 255
        problem.x_zero = 0
        problem.w[:2], problem.w[2:] = 127, -128
        y, _ = guarded(12, np.float32)
        problem.run(library, form, {"y_float": y}, bias=False)
        np.testing.assert_array_equal(y.reshape(3, 4), (problem.real() - problem.bias).astype(np.float32))
