"""Block-sparse weights: the blocks of a matrix that are not all zeros, by rows of blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnxcompress.ops.op import Array

BLOCK_ROWS = (1, 4, 16)
"""Outputs of a block, of those that kernels exist for; every block has 4 inputs."""


class Blocks(NamedTuple):
    """The present blocks of a matrix [N, K].

    Attributes:
        values: int8 [blocks, n, k], row of blocks after row of blocks.
        row_start: int32 [ceil(N / n) + 1]: where in `values` each row of blocks begins, and the last one ends.
        column: int32 [blocks], in units of k, increasing within a row of blocks.
    """

    values: Array
    row_start: Array
    column: Array


def to_blocks(w: Array, n: int, k: int = 4) -> Blocks:
    """The blocks of n by k of w, int8 [N, K], that are not all zeros. w counts as padded with zeros to whole blocks.

    Raises:
        ValueError: w is no int8 matrix, or n or k is below 1.
    """
    if w.ndim != 2 or w.dtype != np.int8 or n < 1 or k < 1:
        raise ValueError(f"blocks of {n} by {k} need an int8 matrix, not {w.dtype} of shape {w.shape}")
    padded = np.pad(w, [(0, -w.shape[0] % n), (0, -w.shape[1] % k)])
    grid = padded.reshape(padded.shape[0] // n, n, padded.shape[1] // k, k).transpose(0, 2, 1, 3)
    present = grid.any(axis=(2, 3))
    row_start = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    return Blocks(np.ascontiguousarray(grid[present]), row_start, np.nonzero(present)[1].astype(np.int32))


def from_blocks(values: Array, row_start: Array, column: Array, rows: int, columns: int) -> Array:
    """The matrix int8 [rows, columns] of these blocks (see Blocks); what they hold beyond it is dropped.

    Raises:
        ValueError: the blocks are not those of a matrix of this shape.
    """
    blocks, n, k = values.shape
    grid = np.zeros((-(-rows // n), -(-columns // k), n, k), np.int8)
    counts = np.diff(row_start)
    if len(counts) != grid.shape[0] or (counts < 0).any() or row_start[0] != 0 or row_start[-1] != blocks:
        raise ValueError(f"row_start is not that of {grid.shape[0]} rows of {blocks} blocks")
    if len(column) != blocks or (blocks and not 0 <= column.min() <= column.max() < grid.shape[1]):
        raise ValueError(f"a column of blocks lies outside of the {grid.shape[1]} columns")
    grid[np.repeat(np.arange(grid.shape[0]), counts), column] = values
    return grid.transpose(0, 2, 1, 3).reshape(grid.shape[0] * n, grid.shape[1] * k)[:rows, :columns]


def output_count(row_start: Array, block_rows: int, w_scale: Array) -> int:
    """N: the length of w_scale, or, where that is one value for all, all rows of the blocks."""
    return w_scale.shape[0] if w_scale.ndim else (len(row_start) - 1) * block_rows


def blocks_body(shapes: tuple[int, tuple[int, int, int]], rows: int, columns: int, w: str) -> str:
    """Nodes of a function body that make the matrix `w` int8 [rows, columns] of `values`, `row_start` and `column`.

    All is computed from constants, and so when the model is loaded. shapes: length of row_start, and shape of values.
    """
    starts, (blocks, n, k) = shapes
    across = -(-columns // k)
    return f"""
        blocks_zero = Constant <value = int64[1] {{0}}> ()
        blocks_one = Constant <value = int64[1] {{1}}> ()
        blocks_count = Constant <value = int64[1] {{{blocks + 1}}}> ()
        inner_starts = Constant <value = int64[1] {{{starts - 1}}}> ()
        blocks_last_axis = Constant <value = int64[1] {{-1}}> ()
        blocks_axis = Constant <value = int64 {{0}}> ()
        grid_shape = Constant <value = int64[4] {{{starts - 1}, {across}, {n}, {k}}}> ()
        padded_shape = Constant <value = int64[2] {{{(starts - 1) * n}, {across * k}}}> ()
        matrix_shape = Constant <value = int64[2] {{{rows}, {columns}}}> ()
        matrix_begin = Constant <value = int64[2] {{0, 0}}> ()
        inner = Slice (row_start, blocks_one, inner_starts)
        inner_wide = Cast <to = 7> (inner)
        inner_shape = Shape (inner_wide)
        ones = Expand (blocks_one, inner_shape)
        no_marks = Expand (blocks_zero, blocks_count)
        marks = ScatterElements <axis = 0, reduction = "add"> (no_marks, inner_wide, ones)
        rows_and_one = CumSum (marks, blocks_axis)
        blocks_end = Sub (blocks_count, blocks_one)
        block_rows = Slice (rows_and_one, blocks_zero, blocks_end)
        block_columns = Cast <to = 7> (column)
        rows_2d = Unsqueeze (block_rows, blocks_last_axis)
        columns_2d = Unsqueeze (block_columns, blocks_last_axis)
        places = Concat <axis = 1> (rows_2d, columns_2d)
        no_weight = Constant <value = int8[1] {{0}}> ()
        empty_grid = Expand (no_weight, grid_shape)
        grid = ScatterND (empty_grid, places, values)
        grid_by_rows = Transpose <perm = [0, 2, 1, 3]> (grid)
        padded_matrix = Reshape (grid_by_rows, padded_shape)
        {w} = Slice (padded_matrix, matrix_begin, matrix_shape)
    """
