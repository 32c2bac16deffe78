"""CUDA embeddings and their normalization, emulated, against the numpy reference of EmbedLayerNorm."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.embedlayernorm import EMBEDLAYERNORM
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/embedding.hpp"
static void run(const oc::cuda::EmbedNorm& arguments) { oc::cuda::embed_norm(arguments, nullptr); }
OC_EXPORT(embed_norm, run)
OC_EXPORT_SIZE(EmbedNorm)
"""

WORDS, TYPES, POSITIONS = 30, 2, 40


class TokenIds(ctypes.Structure):
    """Of csrc/cuda/embedding.hpp."""

    _fields_ = (("values", ctypes.c_void_p), ("narrow", ctypes.c_bool), ("count", ctypes.c_int64))


class EmbedNorm(ctypes.Structure):
    """Of csrc/cuda/embedding.hpp."""

    _fields_ = (
        ("tokens", ctypes.c_int64),
        ("channels", ctypes.c_int),
        *((name, TokenIds) for name in ("ids", "type_ids", "position_ids")),
        *((name, ctypes.c_int64) for name in ("words", "types", "positions")),
        *((name, ctypes.c_void_p) for name in ("word_table", "word_scale", "type_table")),
        *((name, ctypes.c_void_p) for name in ("position_table", "position_bytes", "position_scale")),
        ("position_offset", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("gamma", "beta", "y", "q")),
        ("q_inverse", ctypes.c_float),
        ("q_inverse_vector", ctypes.c_void_p),
        ("q_zero", ctypes.c_int),
        ("dynamic", ctypes.c_bool),
        ("row_scale", ctypes.c_void_p),
        ("row_zero", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Case:
    """positions: "" none, "counted", "row": ids of a sentence, "each": ids of each. q: "", "static", "vector"."""

    batch: int
    length: int
    channels: int
    types: bool = True
    positions: str = "counted"
    bytes_of_positions: bool = False
    q: str = "static"
    dynamic: bool = False
    outputs: tuple[str, ...] = ("y", "q")
    narrow: bool = False
    offset: int = 0


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("embedding", ["cuda/embedding.cu"], BINDINGS)


def inputs_of(case: Case) -> list[Array | None]:
    """As EmbedLayerNorm has them."""
    rng = np.random.default_rng(case.channels)
    kind = np.int32 if case.narrow else np.int64
    shape = (case.batch, case.length)

    def floats(*of: int) -> Array:
        return rng.normal(0, 0.3, of).astype(np.float32)

    def table(rows: int) -> Array:
        return rng.integers(-127, 128, (rows, case.channels)).astype(np.int8)

    def scale(rows: int) -> Array:
        return rng.uniform(0.001, 0.01, rows).astype(np.float32)

    is_bytes = case.positions and case.bytes_of_positions
    places = {"row": (case.length,), "each": shape}.get(case.positions)
    q_scale: dict[str, Array] = {"static": np.array(0.03, np.float32)}
    q_scale["vector"] = rng.uniform(0.02, 0.06, case.channels).astype(np.float32)
    return [
        rng.integers(0, WORDS, shape).astype(kind),
        table(WORDS),
        scale(WORDS),
        rng.integers(0, TYPES, shape).astype(kind) if case.types else None,
        floats(TYPES, case.channels) if case.types else None,
        (table(POSITIONS) if is_bytes else floats(POSITIONS, case.channels)) if case.positions else None,
        None if places is None else rng.integers(0, POSITIONS, places).astype(kind),
        1 + floats(case.channels),
        floats(case.channels),
        q_scale.get(case.q),
        None if case.dynamic else np.array(117, np.uint8),
        scale(POSITIONS) if is_bytes else None,
    ]


def run(library: Emulated, case: Case, inputs: list[Array | None]) -> dict[str, Array]:
    shape = (case.batch, case.length, case.channels)
    made: dict[str, Array] = {
        "y": np.full(shape, 7, np.float32),
        "q": np.full(shape, 99, np.uint8),
        "row_scale": np.full((*shape[:2], 1), 7, np.float32),
        "row_zero": np.full((*shape[:2], 1), 99, np.uint8),
    }
    outputs = {name: made[name] for name in case.outputs}
    ids, table, scale, type_ids, types, positions, places, gamma, beta, q_scale, q_zero, position_scale = inputs
    given: dict[str, Any] = {
        "type_table": types, "position_bytes" if position_scale is not None else "position_table": positions,
        "position_scale": position_scale,
    }  # fmt: skip
    if q_scale is not None:
        given["q_inverse"] = float(1 / np.ravel(q_scale)[0])
        given["q_inverse_vector"] = (1 / q_scale).astype(np.float32) if q_scale.ndim else None
    arguments = library.structure(
        EmbedNorm, tokens=case.batch * case.length, channels=case.channels, ids=token_ids(ids),
        type_ids=token_ids(type_ids), position_ids=token_ids(places), words=WORDS, types=TYPES, positions=POSITIONS,
        word_table=table, word_scale=scale, position_offset=case.offset, length=case.length, epsilon=1e-5,
        gamma=gamma, beta=beta, q_zero=0 if q_zero is None else int(q_zero), dynamic=case.dynamic,
        **{"q_inverse": 1, **{name: value for name, value in given.items() if value is not None}}, **outputs,
    )  # fmt: skip
    library.call("embed_norm", arguments)
    return outputs


def token_ids(ids: Array | None) -> TokenIds:
    return TokenIds() if ids is None else TokenIds(ids.ctypes.data, ids.dtype == np.int32, ids.size)


def check(library: Emulated, case: Case) -> None:
    """y and row scales to 3e-6 of max(1, |y|), bytes exactly, but for one step in a few near a tie."""
    inputs = inputs_of(case)
    outputs = run(library, case, inputs)
    attributes = {"epsilon": 1e-5, "position_offset": case.offset, "dynamic": int(case.dynamic)}
    expected = dict(
        zip(("y", "q", "row_scale", "row_zero"), EMBEDLAYERNORM.reference(attributes, *inputs), strict=True)
    )
    for name, actual in outputs.items():
        want = expected[name]
        assert want is not None
        if actual.dtype == np.float32:
            np.testing.assert_allclose(actual, want, rtol=3e-6, atol=3e-6 if name == "y" else 0)
        else:
            difference = np.abs(actual.astype(int) - want)
            assert difference.max(initial=0) <= 1
            assert (difference > 0).mean() < 3e-3 + 2 / difference.size


@pytest.mark.parametrize("channels", [1, 3, 4, 67, 127, 384, 511, 512, 513, 768, 1030, 1100])
@pytest.mark.parametrize("dynamic", [False, True])
def test_every_width(library: Emulated, order: str, channels: int, dynamic: bool) -> None:
    outputs = ("y", "q", "row_scale", "row_zero") if dynamic else ("y", "q")
    check(library, Case(2, 3, channels, dynamic=dynamic, outputs=outputs))


@pytest.mark.parametrize("channels", [64, 70])
@pytest.mark.parametrize("bytes_of_positions", [False, True])
@pytest.mark.parametrize("positions", ["", "counted", "row", "each"])
@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
def test_every_table(
    library: Emulated, channels: int, bytes_of_positions: bool, positions: str, types: bool, narrow: bool
) -> None:
    check(library, Case(3, 5, channels, types, positions, bytes_of_positions, narrow=narrow, offset=4))


@pytest.mark.parametrize("q", ["", "static", "vector"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_scales_of_bytes(library: Emulated, order: str, q: str, dynamic: bool) -> None:
    check(library, Case(2, 4, 150, q=q, dynamic=dynamic, outputs=("y", "q") if q or dynamic else ("y",)))


@pytest.mark.parametrize("outputs", [("y",), ("q",), ("row_scale",), ("row_zero",), ("q", "row_scale"), ()])
def test_outputs_that_nobody_asks_for(library: Emulated, outputs: tuple[str, ...]) -> None:
    check(library, Case(1, 3, 90, dynamic=True, q="", outputs=outputs))


@pytest.mark.parametrize("channels", [8, 600])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("table", "value"), [(0, -1), (0, WORDS), (0, 1 << 40), (3, TYPES), (3, -1), (6, POSITIONS), (6, -(1 << 33))]
)
def test_an_id_beyond_its_table_is_not_a_number(
    library: Emulated, channels: int, dynamic: bool, table: int, value: int
) -> None:
    """Its row alone, and nothing beyond the table is read."""
    case = Case(2, 3, channels, positions="each", dynamic=dynamic, outputs=("y", "q"))
    inputs = inputs_of(case)
    before = run(library, case, inputs)
    ids = inputs[table]
    assert ids is not None
    ids[1, 1] = value
    outputs = run(library, case, inputs)
    assert np.isnan(outputs["y"][1, 1]).all() and (outputs["q"][1, 1] == 0).all()
    others = np.ones((2, 3), bool)
    others[1, 1] = False
    for name in ("y", "q"):
        np.testing.assert_array_equal(outputs[name][others], before[name][others])


def test_narrow_negative_ids_are_not_large_ones(library: Emulated) -> None:
    case = Case(1, 2, 8, narrow=True)
    inputs = inputs_of(case)
    assert inputs[0] is not None
    inputs[0][0, 0] = -1
    y = run(library, case, inputs)["y"]
    assert np.isnan(y[0, 0]).all() and np.isfinite(y[0, 1]).all()


@pytest.mark.parametrize("channels", [33, 700])
def test_rows_of_one_value_become_beta(library: Emulated, channels: int) -> None:
    case = Case(1, 2, channels, types=False, positions="")
    inputs = inputs_of(case)
    table, beta = inputs[1], inputs[8]
    assert table is not None and beta is not None
    table[:] = 0
    np.testing.assert_array_equal(run(library, case, inputs)["y"], np.tile(beta, (1, 2, 1)))


def test_a_large_mean_costs_little_precision(library: Emulated) -> None:
    """In steps of the sum's own last place, 300 * 2^-23 over a deviation of 0.4 and times gamma."""
    case = Case(1, 2, 500, positions="", q="", outputs=("y",))
    inputs = inputs_of(case)
    types = inputs[4]
    assert types is not None
    types += 300
    exact = EMBEDLAYERNORM.reference({"epsilon": 1e-5, "position_offset": 0, "dynamic": 0}, *inputs)[0]
    assert exact is not None
    np.testing.assert_allclose(run(library, case, inputs)["y"], exact, rtol=0, atol=3e-4)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_no_tokens_need_no_launch(library: Emulated, shape: tuple[int, int]) -> None:
    case = Case(*shape, 8)
    assert run(library, case, inputs_of(case))["y"].size == 0
