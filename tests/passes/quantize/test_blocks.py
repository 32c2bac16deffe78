"""Block-wise arithmetic: error bounds, exact zero, packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcompress.passes.quantize import blocks

Array = np.ndarray[Any, Any]

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


@settings(max_examples=60, deadline=None)
@given(matrices, st.sampled_from([4, 8]), st.booleans())
def test_error_is_at_most_half_a_scale_and_zero_is_exact(weight: Array, bits: int, symmetric: bool) -> None:
    scales, zeros = blocks.block_parameters(weight, 16, bits, symmetric=symmetric)
    integers = blocks.quantize_blocks(weight, scales, zeros, 16, bits)
    back = blocks.dequantize_blocks(integers, scales, zeros, 16)[:, : weight.shape[1]]
    # The rounding of the zero point can push either end of an asymmetric block half a step out of range.
    bound = np.repeat(scales, 16, axis=1)[:, : weight.shape[1]] * (0.5 if symmetric else 1.0)
    assert np.all(np.abs(back - weight) <= bound * 1.0001)
    assert np.all(back[weight == 0] == 0)
    assert integers.max() < 1 << bits


def test_scales_of_whole_matrix_agree_with_formula() -> None:
    weight = np.array([[-3.0, 0.0, 4.5, 1.0] * 4], np.float32)
    scales, zeros = blocks.block_parameters(weight, 16, 4, symmetric=False)
    assert scales[0, 0] == pytest.approx(7.5 / 15)
    assert zeros[0, 0] == 6
    scales, zeros = blocks.block_parameters(weight, 16, 4, symmetric=True)
    assert scales[0, 0] == pytest.approx(4.5 / 7)
    assert zeros[0, 0] == 8


def test_block_of_zeros_has_scale_one() -> None:
    scales, _ = blocks.block_parameters(np.zeros((2, 32), np.float32), 32, 4, symmetric=False)
    assert np.all(scales == 1)


def test_last_block_is_padded_with_its_zero_point() -> None:
    weight = np.full((1, 20), -2.0, np.float32)
    scales, zeros = blocks.block_parameters(weight, 16, 4, symmetric=False)
    integers = blocks.quantize_blocks(weight, scales, zeros, 16, 4)
    assert integers.shape == (1, 32)
    assert np.all(integers[0, 20:] == zeros[0, 1])


def test_nibbles_go_low_half_first_and_odd_ends_are_padded() -> None:
    packed = blocks.pack_nibbles(np.array([[1, 2, 15]], np.uint8))
    assert packed.tolist() == [[0x21, 0x0F]]
