"""Block-sparse weights and pairs of 4-bit weights: made, and made back."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.ops.blocks import from_blocks, to_blocks
from onnxcompress.ops.qlinear4 import pack4, unpack4
from tests.ops.cases.qsparselinear import sparse_matrix


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 8), (33, 30), (50, 129)])
def test_blocks_give_the_matrix_back(n: int, k: int, block: int) -> None:
    w = sparse_matrix(n, k, block, 0.3)
    blocks = to_blocks(w, block)
    assert blocks.values.shape[1:] == (block, 4)
    assert blocks.row_start[-1] == len(blocks.column) == len(blocks.values)
    assert all(np.any(values) for values in blocks.values)
    np.testing.assert_array_equal(from_blocks(*blocks, n, k), w)


def test_a_matrix_of_zeros_has_no_blocks() -> None:
    blocks = to_blocks(np.zeros((8, 8), np.int8), 4)
    assert blocks.values.shape == (0, 4, 4)
    np.testing.assert_array_equal(blocks.row_start, [0, 0, 0])


def test_columns_increase_within_a_row_of_blocks() -> None:
    w = np.zeros((8, 12), np.int8)
    w[1, 0] = w[2, 9] = w[7, 5] = 1
    blocks = to_blocks(w, 4)
    np.testing.assert_array_equal(blocks.row_start, [0, 2, 3])
    np.testing.assert_array_equal(blocks.column, [0, 2, 1])


@pytest.mark.parametrize("w", [np.zeros((4, 4), np.float32), np.zeros(4, np.int8)])
def test_only_an_int8_matrix_has_blocks(w: np.ndarray) -> None:
    with pytest.raises(ValueError, match="need an int8 matrix"):
        to_blocks(w, 4)


def test_blocks_of_another_matrix_are_refused() -> None:
    values, row_start, column = to_blocks(np.ones((8, 8), np.int8), 4)
    with pytest.raises(ValueError, match="row_start"):
        from_blocks(values, row_start, column, 12, 8)
    with pytest.raises(ValueError, match="column"):
        from_blocks(values, row_start, column + 1, 8, 8)


def test_pairs_give_the_weights_back() -> None:
    values = np.arange(32, dtype=np.uint8).reshape(2, 16) % 16
    packed = pack4(values)
    assert packed[0, 0] == 0x10
    np.testing.assert_array_equal(unpack4(packed), values)


@pytest.mark.parametrize("values", [np.zeros((2, 3), np.uint8), np.full((2, 4), 16, np.uint8)])
def test_what_does_not_fit_into_pairs_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        pack4(values)
