"""The emulation shim against the definitions of what it emulates, and against misuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.activation import ACTIVATIONS, activation_reference
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated, EmulationError

Array = np.ndarray[Any, Any]

LANES = np.arange(32)
G, T = LANES // 4, LANES % 4


@pytest.fixture(scope="module")
def shim(emulate: Emulate) -> Emulated:
    return emulate("shim", [], '#include "cuda/activate.hpp"\n#include "shim_kernels.hpp"\n')


def fragment_a(a: Array) -> Array:
    """Registers [32 lanes, 4] of a [16, 16 or 32], as the tables of the PTX ISA for mma.m16n8k16 and k32 give them."""
    size = a.dtype.itemsize
    in_register = 4 // size
    registers = np.zeros((32, 4, in_register), a.dtype)
    for i in range(4 * in_register):  # element a_i
        row = np.where((i // in_register) % 2 == 0, G, G + 8)
        column = T * in_register + i % in_register + (4 * in_register if i >= 2 * in_register else 0)
        registers[:, i // in_register, i % in_register] = a[row, column]
    return registers.view(np.uint32).reshape(32, 4)


def fragment_b(b: Array) -> Array:
    """Registers [32 lanes, K / 16 bytes] of b [K, 8]."""
    in_register = 4 // b.dtype.itemsize
    count = b.shape[0] // (4 * in_register)
    registers = np.zeros((32, count, in_register), b.dtype)
    for i in range(count * in_register):
        registers[:, i // in_register, i % in_register] = b[
            T * in_register + i % in_register + i // in_register * 4 * in_register, G
        ]
    return registers.view(np.uint32).reshape(32, count)


def from_fragment_d(d: Array) -> Array:
    result = np.zeros((16, 8), d.dtype)
    for i in range(4):
        result[G + (8 if i >= 2 else 0), 2 * T + i % 2] = d[:, i]
    return result


def to_fragment_d(d: Array) -> Array:
    return np.stack([d[G + (8 if i >= 2 else 0), 2 * T + i % 2] for i in range(4)], axis=1)


@pytest.mark.parametrize("kind", [0, 1])
def test_integer_tensor_cores_multiply(shim: Emulated, order: str, kind: int) -> None:
    rng = np.random.default_rng(kind)
    u8, s8 = rng.integers(0, 256, (16, 32)).astype(np.uint8), rng.integers(-128, 128, (32, 8)).astype(np.int8)
    a, b = (u8, s8) if kind == 0 else (rng.integers(-128, 128, (16, 32)).astype(np.int8), u8[:8].T.copy())
    start = rng.integers(-1000, 1000, (16, 8)).astype(np.int32)
    d = to_fragment_d(start)
    shim.call("multiply", kind, fragment_a(a), fragment_b(b), None, d)
    np.testing.assert_array_equal(from_fragment_d(d), start + a.astype(np.int32) @ b.astype(np.int32))


def test_half_tensor_cores_multiply(shim: Emulated, order: str) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((16, 16)).astype(np.float16), rng.standard_normal((16, 8)).astype(np.float16)
    start = rng.standard_normal((16, 8)).astype(np.float32)
    d = to_fragment_d(start)
    shim.call("multiply", 2, fragment_a(a), fragment_b(b), None, d)
    expected = start + a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(from_fragment_d(d), expected, rtol=0, atol=1e-5)


def test_sparse_tensor_cores_multiply(shim: Emulated, order: str) -> None:
    rng = np.random.default_rng(3)
    columns = np.sort([[rng.choice(4, 2, replace=False) for _ in range(16)] for _ in range(16)], axis=-1)
    stored = rng.integers(-128, 128, (16, 16, 2)).astype(np.int8)
    dense = np.zeros((16, 16, 4), np.int8)
    np.put_along_axis(dense, columns, stored, axis=-1)
    b = rng.integers(0, 256, (64, 8)).astype(np.uint8)
    # "Sparse MMA .m16n8k64 metadata layout for .u8/.s8 type": lanes 0 and 1 of four hold columns 0 to 31 of rows g and
    # g + 8, lanes 2 and 3 columns 32 to 63.
    fields = (columns[..., 0] | columns[..., 1] << 2).astype(np.uint32).reshape(16, 2, 8)
    words = (fields << (4 * np.arange(8, dtype=np.uint32))).sum(-1).astype(np.uint32)
    metadata = words[G + 8 * (T % 2), T // 2]
    d = np.zeros((32, 4), np.int32)
    shim.call("multiply", 3, fragment_a(stored.reshape(16, 32)), fragment_b(b), metadata, d)
    expected = dense.reshape(16, 64).astype(np.int32) @ b.astype(np.int32)
    np.testing.assert_array_equal(from_fragment_d(d), expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_loaded_as_fragments(shim: Emulated, order: str, transposed: bool) -> None:
    rows = np.random.default_rng(4).integers(0, 65536, (4, 8, 8)).astype(np.uint16)
    registers = np.zeros((32, 4), np.uint32)
    shim.call("matrices", rows, registers, transposed)
    expected = rows.transpose(0, 2, 1) if transposed else rows
    for m in range(4):
        pairs = np.ascontiguousarray(expected[m]).view(np.uint32)
        np.testing.assert_array_equal(registers[:, m], pairs[G, T])


def test_shuffles_and_votes(shim: Emulated, order: str) -> None:
    x = np.random.default_rng(5).integers(-50, 50, 32).astype(np.int32)
    y = np.zeros((8, 32), np.int32)
    shim.call("shuffles", x, y)
    down = np.where(LANES % 16 < 13, LANES + 3, LANES)
    sources = [np.full(32, 5), LANES // 8 * 8 + (LANES + 1) % 8, np.maximum(LANES - 3, 0), down, LANES ^ 9]
    sources[2] = np.where(LANES < 3, LANES, LANES - 3)
    for got, source in zip(y[:5], sources, strict=True):
        np.testing.assert_array_equal(got, x[source])
    votes = int(sum(1 << i for i in range(32) if x[i] > 0))
    assert (y[5].view(np.uint32) == votes).all()
    assert (y[6] == (x > 0).any()).all() and (y[7] == (x > 0).all()).all()


def test_a_missing_barrier_shows(shim: Emulated, order: str) -> None:
    x, y = np.arange(192, dtype=np.int32), np.zeros(192, np.int32)
    expected = x.reshape(3, 64)[:, ::-1].ravel()
    shim.call("reverse", x, y, 3, True)
    np.testing.assert_array_equal(y, expected)
    shim.call("reverse", x, y, 3, False)
    assert (y != expected).any()


def test_each_of_two_barriers_shows_in_one_order(shim: Emulated) -> None:
    expected, results = (np.arange(64) + 3) % 64, {}
    for backwards in (False, True):
        Emulated.reversed = backwards
        for first, second in ((True, True), (True, False), (False, True)):
            y = np.zeros(64, np.int32)
            shim.call("rounds", y, first, second)
            results[backwards, first, second] = bool((y == expected).all())
    Emulated.reversed = False
    assert results[False, True, True] and results[True, True, True]
    assert not (results[False, True, False] and results[True, True, False])
    assert not (results[False, False, True] and results[True, False, True])


def test_warps_are_apart_as_far_as_barriers_allow(shim: Emulated, order: str) -> None:
    y = np.zeros(128, np.int32)
    shim.call("skewed", y)
    warps = y.reshape(4, 32)
    assert (warps == warps[:, :1]).all()
    expected = [-1, -1, -1, 0] if order == "forward" else [1, 2, 3, -1]
    assert warps[:, 0].tolist() == expected


def test_copies_land_when_they_are_waited_for(shim: Emulated, order: str) -> None:
    x = np.random.default_rng(6).integers(0, 200, 1024).astype(np.uint8)
    y = np.zeros(1024, np.uint8)
    shim.call("pipeline", x, y, 32, 0)
    np.testing.assert_array_equal(y, x)
    shim.call("pipeline", x, y, 32, 1)
    np.testing.assert_array_equal(y[:512], x[:512])
    shim.call("pipeline", x, y, 32, 2)
    assert (y[:512] != x[:512]).all()  # not yet there: garbage
    shim.call("pipeline", x, y, 20, 0)
    np.testing.assert_array_equal(y[:512], np.where(np.arange(512) < 320, x[:512], 0))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (0, "a divergent barrier"),
        (1, "a deadlock"),
        (2, "has ended"),
        (3, "reads a lane outside its mask"),
        (4, "different masks"),
        (5, "leaves out the calling lane"),
        (6, "not aligned"),
        (7, "do not rise"),
        (8, "different instructions"),
    ],
)
def test_what_a_gpu_leaves_undefined_is_an_error(shim: Emulated, order: str, kind: int, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        shim.call("misuse", kind, np.zeros(64, np.uint8), 1, 64, 0)
    shim.call("misuse", 99, np.zeros(64, np.uint8), 1, 64, 0)  # and the next launch is none the worse


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [(0, 32, 0, "nothing to do"), (1, 0, 0, "nothing to do"), (1, 1056, 0, "too many threads"),
     (1, 32, 100 << 10, "more shared memory")],
)  # fmt: skip
def test_no_launch_beyond_a_device(shim: Emulated, grid: int, block: int, shared: int, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        shim.call("misuse", 99, None, grid, block, shared)


def test_a_mask_does_not_name_lanes_that_are_not_there(shim: Emulated) -> None:
    shim.call("misuse", 9, None, 1, 64, 0)
    with pytest.raises(EmulationError, match="is not there"):
        shim.call("misuse", 9, None, 1, 48, 0)


def test_blocks_and_threads_have_their_indices(shim: Emulated, order: str) -> None:
    y = np.zeros((12, 24), np.int32)
    shim.call("indices", y)
    threads = np.arange(24)
    np.testing.assert_array_equal(y, np.broadcast_to(np.where(threads % 3 == 0, 0, threads + 1), (12, 24)))


def test_halves_are_those_of_numpy(shim: Emulated) -> None:
    halves = np.arange(65536, dtype=np.uint16)
    floats = np.zeros(65536, np.float32)
    shim.call("from_half", halves, floats, halves.size)
    np.testing.assert_array_equal(floats, halves.view(np.float16).astype(np.float32))
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.standard_normal(3000) * 10.0 ** rng.integers(-9, 6, 3000), [0, -0.0, np.inf, -np.inf]])
    finite = floats[np.isfinite(floats)]
    ties = (finite[:-1].astype(np.float64) + finite[1:]) / 2
    x = np.concatenate([x, ties, [65519.9, 65520, 1e10]]).astype(np.float32)
    got = np.zeros(x.size, np.uint16)
    shim.call("to_half", x, got, x.size)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, x.astype(np.float16).view(np.uint16))


def test_words_of_bytes(shim: Emulated) -> None:
    x = np.random.default_rng(8).integers(0, 2**32, (300, 3), dtype=np.uint32)
    x[0] = 0
    got = np.zeros((300, 6), np.uint32)
    shim.call("integers", x, got, 300)
    a, b = (np.ascontiguousarray(x[:, i]).view(np.uint8).reshape(-1, 4) for i in (0, 1))
    signed = (a.view(np.int8).astype(int) * b.view(np.int8).astype(int)).sum(1) + 7
    np.testing.assert_array_equal(got[:, 0].view(np.int32), signed)
    np.testing.assert_array_equal(got[:, 1], (a.astype(int) * b.astype(int)).sum(1) + 7)
    both = np.concatenate([a, b], axis=1)
    for i, (_, _, selector) in enumerate(x):
        nibbles = [int(selector) >> 4 * j & 15 for j in range(4)]
        chosen = [(255 if both[i, n & 7] & 128 else 0) if n & 8 else both[i, n & 7] for n in nibbles]
        assert bytes(np.array(chosen, np.uint8)) == got[i, 2].tobytes()
    lengths = [int(word).bit_length() for word in x[:, 0]]
    np.testing.assert_array_equal(got[:, 3], [int(word).bit_count() for word in x[:, 0]])
    np.testing.assert_array_equal(got[:, 4], [32 - length for length in lengths])
    np.testing.assert_array_equal(got[:, 5], [(int(word) & -int(word)).bit_length() for word in x[:, 0]])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_the_reference(shim: Emulated, name: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [-1e4, -90, -88, 88, 90, 1e4]]).astype(np.float32)
    got = np.zeros_like(x)
    shim.call("activations", ACTIVATIONS.index(name), x, got, x.size)
    expected = activation_reference(name, x.astype(np.float64))
    assert np.abs(got - expected).max() <= 1e-6 * np.maximum(1, np.abs(x)).max()
    assert (np.abs(got - expected) <= 1e-6 * np.maximum(1, np.abs(x))).all()
