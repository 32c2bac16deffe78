"""Cases of QAttention.

Kernels round probabilities to 255ths of the greatest and so may be 2 steps off a result that spans all 256 values. The
scores have a standard deviation of 1.5; test_qattention.py has other ones and more keys.
"""

from typing import Any

import numpy as np

from onnxcompress.ops.qattention import attention
from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(0)
_STEPS, _SHARE = 2, 0.35


def _case(
    name: str,
    batch: int,
    length: int,
    heads: int,
    size: int,
    mask: Array | None = None,
    zero_point: int = 128,
    qkv: Array | None = None,
    body_steps: int = 1,
    **attributes: Any,
) -> Case:
    channels = heads * size
    if qkv is None:
        qkv = np.clip(_rng.normal(128, 40, (batch, length, 3 * channels)), 0, 255).astype(np.uint8)
    q_scale, k_scale = (_rng.uniform(0.8, 1.2, (2, heads)) * np.sqrt(1.5) / 40).astype(np.float32)
    v_scale = _rng.uniform(0.01, 0.03, channels).astype(np.float32)
    attributes = {"num_heads": heads, **attributes}
    filled = {"scale": 0.0, "mask_kind": "keep", **attributes}
    y = attention(filled, qkv, q_scale, k_scale, v_scale, mask)
    reach = {0: y.max(initial=0) / 255, 255: -y.min(initial=0) / 255}.get(zero_point, np.abs(y).max(initial=0) / 127)
    y_scale = np.float32(max(reach, 1e-6))
    inputs = [qkv, q_scale, k_scale, v_scale, mask, np.array(y_scale), np.array(zero_point, np.uint8)]
    return Case("QAttention", name, inputs, attributes, steps=_STEPS, share=_SHARE, body_steps=body_steps)


def _keep(batch: int, length: int, dtype: Any) -> Array:
    kept = np.maximum(_rng.integers(0, length + 1, (batch, 1)), 1)
    return (np.arange(length) < kept).astype(dtype)


def _bytes(value: int, batch: int, length: int, channels: int) -> Array:
    return np.full((batch, length, 3 * channels), value, np.uint8)


def _corners(batch: int, length: int, channels: int) -> Array:
    return (255 * _rng.integers(0, 2, (batch, length, 3 * channels))).astype(np.uint8)


def _huge(length: int) -> Array:
    values = np.array([0, -np.inf, np.finfo(np.float32).min, -10000.0, 2.5], np.float32)
    mask = values[_rng.integers(0, 5, (2, 1, 1, length))]
    mask[:, :, :, 0] = 0
    return mask


def _causal(batch: int, length: int) -> Array:
    return np.broadcast_to(np.where(np.tri(length) > 0, 0, -1e9).astype(np.float32), (batch, 1, length, length)).copy()


def _bias(batch: int, heads: int, length: int) -> Array:
    return _rng.normal(0, 1, (batch, heads, length, length)).astype(np.float32)


CASES = [
    _case("one token", 1, 1, 2, 32),
    _case("a short sentence", 1, 16, 12, 32),
    _case("a block and a tail", 2, 50, 3, 64),
    _case("a tail of one query", 1, 33, 2, 32),
    _case("a whole sentence", 1, 128, 4, 32, _keep(1, 128, np.int64)),
    _case("parts of the queries", 1, 260, 1, 48),
    _case("heads of 80", 1, 49, 2, 80),
    _case("heads of 20", 2, 19, 3, 20),
    _case("heads of 17", 1, 21, 2, 17),
    _case("heads of 6", 1, 9, 5, 6),
    _case("heads of 1", 1, 12, 4, 1),
    _case("heads of 4 and nothing beyond", 1, 3, 1, 4),
    _case("no batch", 0, 8, 2, 32, _keep(0, 8, np.int64)),
    _case("no tokens", 2, 0, 2, 32),
    _case("keep int32", 3, 40, 2, 32, _keep(3, 40, np.int32)),
    _case("keep float", 3, 20, 2, 32, _keep(3, 20, np.float32)),
    _case("keep bool", 3, 20, 2, 32, _keep(3, 20, np.bool_)),
    _case("all keys masked", 2, 20, 2, 32, np.zeros((2, 20), np.int64)),
    _case("add to keys", 2, 37, 2, 32, _huge(37), mask_kind="add"),
    _case("add to keys of one batch and every head", 1, 9, 2, 32, _bias(1, 2, 9)[:, :, :1], mask_kind="add"),
    _case("add all masked", 1, 20, 2, 32, np.full((1, 1, 1, 20), -np.inf, np.float32), mask_kind="add"),
    _case("add causal", 2, 70, 2, 32, _causal(2, 70), mask_kind="add"),
    _case("add to every head", 2, 35, 3, 32, _bias(2, 3, 35), mask_kind="add"),
    _case("add the same to every batch", 2, 35, 3, 32, _bias(1, 3, 35), mask_kind="add"),
    _case("add at odd sizes", 1, 5, 3, 5, _bias(1, 1, 5), mask_kind="add"),
    _case("another scale", 1, 24, 2, 32, scale=0.5),
    _case("zero point 0", 1, 24, 2, 32, zero_point=0),
    _case("zero point 255", 1, 24, 2, 32, zero_point=255),
    _case("all bytes 0", 1, 24, 2, 32, qkv=_bytes(0, 1, 24, 64)),
    _case("all bytes 255", 1, 24, 2, 32, qkv=_bytes(255, 1, 24, 64)),
    _case("bytes 0 and 255", 1, 24, 2, 64, qkv=_corners(1, 24, 128)),
]
