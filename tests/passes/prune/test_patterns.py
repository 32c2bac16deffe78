"""Masks obey their pattern, whatever the shape; and the greatest scores stay."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcompress.ops.blocks import to_blocks
from onnxcompress.passes.prune import GRIDS, Grid, Layer, grid_of, pattern_refusal
from onnxcompress.passes.prune.patterns import choose, expand_units, follows, keep_greatest, unit_count, unit_sums

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(list(GRIDS)), st.floats(0, 1), st.integers(0, 99))
def test_masks_follow_their_pattern(shape: tuple[int, int], pattern: str, sparsity: float, seed: int) -> None:
    grid = grid_of(pattern)
    scores = np.random.default_rng(seed).random(shape)
    removed = round(sparsity * unit_count(grid, shape))
    mask = choose(scores, grid, removed)
    assert mask.shape == shape and mask.dtype == bool
    assert follows(mask, grid)
    if grid.keep is None:
        gone = unit_sums((~mask).astype(int), grid) > 0
        assert gone.sum() == removed and gone.size == unit_count(grid, shape)
        sums = unit_sums(scores, grid)
        assert not gone.any() or gone.all() or sums[gone].max() <= sums[~gone].min()


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 99))
def test_two_of_four_keeps_the_two_greatest(shape: tuple[int, int], seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(shape[0] * shape[1]).reshape(shape).astype(float)
    mask = choose(scores, GRIDS["2:4"], 0)
    for row, column in itertools.product(range(shape[0]), range(0, shape[1], 4)):
        group, kept = scores[row, column : column + 4], mask[row, column : column + 4]
        assert kept.sum() == min(2, len(group))
        assert set(group[kept]) == set(sorted(group)[-2:])


@pytest.mark.parametrize(("pattern", "rows"), [("block1x4", 1), ("block4x4", 4), ("block16x4", 16)])
def test_blocks_are_those_that_the_kernels_skip(pattern: str, rows: int) -> None:
    scores = np.random.default_rng(0).random((37, 50))
    grid = GRIDS[pattern]
    units = unit_count(grid, scores.shape)
    mask = choose(scores, grid, round(0.8 * units))
    stored = to_blocks(np.where(mask, 1, 0).astype(np.int8), rows)
    assert len(stored.values) == units - round(0.8 * units)


def test_other_masks_do_not_follow() -> None:
    mask = np.ones((8, 8), bool)
    mask[0, 0] = False
    assert not follows(mask, GRIDS["block4x4"])
    assert not follows(mask, GRIDS["block1x4"])
    assert not follows(mask, GRIDS["2:4"])
    assert follows(mask, GRIDS["unstructured"])
    mask[0, :4] = False
    assert follows(mask, GRIDS["block1x4"]) and not follows(mask, GRIDS["block4x4"])


def test_the_first_of_equals_go() -> None:
    assert np.array_equal(keep_greatest(np.zeros((2, 3)), 2), [[False, False, True], [True, True, True]])


def test_units_expand_to_the_weights_they_cover() -> None:
    units = np.array([[1, 2], [3, 4]])
    expected = [[1, 1, 1, 1, 2], [1, 1, 1, 1, 2], [3, 3, 3, 3, 4]]
    assert np.array_equal(expand_units(units, Grid(2, 4), (3, 5)), expected)


def test_refusals() -> None:
    def reason(outputs: int, inputs: int, pattern: str, groups: int = 1) -> str | None:
        return pattern_refusal(Layer("n", "Conv", "w", "x", inputs, outputs, groups), pattern)

    assert reason(64, 64, "block4x4") is None
    assert reason(16, 16, "unstructured") == "it has fewer than 1024 weights"
    assert reason(64, 64, "block4x4", 2) == "no kernel runs a grouped convolution in the pattern block4x4"
    assert reason(64, 64, "unstructured", 2) is None
    assert reason(8, 1024, "block16x4") == "its 8 x 1024 weights are less than a block"
    assert reason(1024, 2, "2:4") == "its 1024 x 2 weights are less than a block"
    with pytest.raises(ValueError, match="pattern must be one of unstructured, 2:4"):
        grid_of("3:4")
