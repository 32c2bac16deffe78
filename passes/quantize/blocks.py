"""Block-wise quantization of matrices along their reduction axis, and the layout of MatMulNBits.

Every matrix is seen as `[N, K]`: N outputs, K inputs; a block is `block_size` consecutive inputs of one
output. Integers are unsigned, with a zero point a block: w = (q - zero_point) * scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxcompress.passes.quantize.arithmetic import LEAST_SCALE

Array = np.ndarray[Any, Any]


def block_parameters(weight: Array, block_size: int, bits: int, *, symmetric: bool) -> tuple[Array, Array]:
    """Scales float32 and zero points uint8, each `[N, ceil(K / block_size)]`, of a float `[N, K]` weight.

    Zero is always exact. Symmetric: zero point 2^(bits-1), and the integer 0 is not used.
    """
    blocks = _blocks(weight, block_size)
    low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    middle = 1 << (bits - 1)
    if symmetric:
        scales = _usable(np.maximum(-low, high) / np.float32(middle - 1))
        return scales, np.full(scales.shape, middle, np.uint8)
    levels = (1 << bits) - 1
    scales = _usable((high - low) / np.float32(levels))
    return scales, np.clip(np.rint(-low / scales), 0, levels).astype(np.uint8)


def quantize_blocks(weight: Array, scales: Array, zero_points: Array, block_size: int, bits: int) -> Array:
    """uint8 `[N, blocks * block_size]` of a float `[N, K]` weight; what pads the last block is its zero point."""
    blocks = _blocks(weight, block_size)
    integers = np.rint(blocks / scales[..., None]) + zero_points[..., None]
    clipped: Array = np.clip(integers, 0, (1 << bits) - 1).astype(np.uint8)
    return clipped.reshape(len(weight), -1)


def dequantize_blocks(integers: Array, scales: Array, zero_points: Array, block_size: int) -> Array:
    """float32 `[N, blocks * block_size]` of what `quantize_blocks` gave."""
    blocks = integers.reshape(len(integers), -1, block_size).astype(np.float32)
    weight: Array = ((blocks - zero_points[..., None]) * scales[..., None]).reshape(len(integers), -1)
    return weight


def pack_nibbles(integers: Array) -> Array:
    """Pairs of 4-bit integers along the last axis as bytes, the first in the low half; an odd end is padded with 0."""
    if integers.shape[-1] % 2:
        integers = np.pad(integers, [(0, 0)] * (integers.ndim - 1) + [(0, 1)])
    packed: Array = (integers[..., 0::2] | (integers[..., 1::2] << 4)).astype(np.uint8)
    return packed


def _blocks(weight: Array, block_size: int) -> Array:
    outputs, inputs = weight.shape
    missing = -inputs % block_size
    if missing:
        weight = np.pad(weight, [(0, 0), (0, missing)])
    return weight.reshape(outputs, -1, block_size)


def _usable(scales: Array) -> Array:
    return np.where(scales > LEAST_SCALE, scales, np.float32(1)).astype(np.float32)
