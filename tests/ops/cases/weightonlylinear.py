"""Cases of WeightOnlyLinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxcompress.ops.qlinear4 import pack4
from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(29)
F16, F32 = np.float16, np.float32


def _codes(n: int, k: int, bits: int) -> Array:
    codes = _rng.integers(0, 1 << bits, (n, k)).astype(np.uint8)
    if bits == 8:
        return codes
    padded = np.concatenate([codes, _rng.integers(0, 16, (n, k % 2)).astype(np.uint8)], axis=1)
    return pack4(padded)  # where K is odd, the last half is anything


def _case(
    name: str,
    x: tuple[int, ...] | Array,
    n: int,
    bits: int = 4,
    block: int = 32,
    *,
    zeros: bool = False,
    bias: bool = False,
    residual: bool = False,
    kind: type = F32,
    **attributes: Any,
) -> Case:
    values = x if isinstance(x, np.ndarray) else _rng.normal(0.2, 1, x)
    k = values.shape[-1]
    blocks = -(-k // block) if block else 1
    scale = _rng.uniform(0.5, 1.5, (n, blocks)) * _rng.choice([-1, 1], (n, blocks)) * 2.0 ** (3 - bits) / np.sqrt(k)
    columns = n // 2 if attributes.get("gated") else n
    inputs: list[Array | None] = [
        values.astype(kind),
        _codes(n, k, bits),
        scale.astype(F32),
        _rng.integers(0, 1 << bits, (n, blocks)).astype(np.uint8) if zeros else None,
        _rng.normal(0, 0.5, n).astype(F32) if bias else None,
        _rng.normal(0, 1, (*values.shape[:-1], columns)).astype(kind) if residual else None,
    ]
    tolerance = 2e-5 if kind is F32 else 1.2e-3  # two roundings to halves may fall apart by a step
    coarser = 3e-3 if kind is F32 else None  # its products are of halves
    given = {"bits": bits, "block_size": block, **attributes}
    return Case("WeightOnlyLinear", name, inputs, attributes=given, tolerance=tolerance, device_tolerance=coarser)


def _special() -> Array:
    x = _rng.normal(0, 1, (5, 64))
    x[1, 3], x[2, 5], x[3, 63] = np.nan, np.inf, -np.inf
    return x


# Few rows and many (more than 16), whole and ragged panels, blocks and octets.
_SHAPES = [(1, 32, 1), (1, 64, 130), (2, 96, 65), (3, 128, 17), (4, 160, 130), (5, 72, 33), (7, 65, 48), (16, 40, 200),
           (17, 65, 50), (20, 520, 33), (22, 288, 7), (100, 300, 70)]  # fmt: skip
_ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "hardswish")

CASES = [
    *(_case(f"{bits} bits, {m}x{k}x{n}", (m, k), n, bits) for bits in (4, 8) for m, k, n in _SHAPES),
    *(_case(f"{bits} bits, {m}x{k}x{n}, zero points, halves", (m, k), n, bits, zeros=True, kind=F16)
      for bits in (4, 8) for m, k, n in _SHAPES),
    *(_case(f"{bits} bits, block of {block}, {m} rows", (m, 300), 70, bits, block, zeros=True)
      for bits in (4, 8) for block in (0, 32, 64, 128) for m in (2, 19)),
    *(_case(f"one scale an output, {m}x{k}, {bits} bits", (m, k), 50, bits, 0)
      for bits in (4, 8) for m in (1, 21) for k in (1, 31, 520)),
    *(_case(a, (5, 64), 70, activation=a, bias=True) for a in _ACTIVATIONS),
    *(_case(f"{a}, gated, {m} rows", (m, 64), 70, activation=a, gated=1, bias=True, residual=True)
      for a in ("", *_ACTIVATIONS) for m in (1, 18)),
    *(_case(f"gated, {n} rows of w, halves", (m, 64), n, 8, 64, activation="silu", gated=1, kind=F16, zeros=True)
      for m, n in ((1, 2), (3, 66), (20, 130))),
    _case("bias", (3, 64), 48, bias=True),
    _case("bias, residual", (2, 3, 64), 48, 8, bias=True, residual=True),
    _case("residual of halves", (23, 64), 48, residual=True, kind=F16, activation="gelu"),
    _case("one dimension", (64,), 50),
    _case("one dimension of halves", (63,), 50, kind=F16, zeros=True),
    _case("no rows", (0, 64), 50),
    _case("no rows, gated", (2, 0, 64), 50, 8, gated=1, residual=True),
    _case("rows in parts", (193, 33), 70, zeros=True),
    _case("many panels", (2, 64), 1000, zeros=True),
    _case("not all are numbers", _special(), 50),
    _case("not all are numbers, many rows", np.resize(_special(), (20, 64)), 50, zeros=True),
    _case("not all are numbers, few", _special()[1:4], 50, 8, kind=F16),
    _case("halves of every size", np.ldexp(_rng.normal(0, 1, (9, 96)), _rng.integers(-24, 3, (9, 96))), 40, kind=F16),
    _case("results beyond halves", np.full((2, 64), 60000.0), 40, 8, 64, kind=F16, zeros=True),
]  # fmt: skip
