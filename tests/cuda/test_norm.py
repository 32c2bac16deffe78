"""CUDA LayerNorm and RMSNorm, emulated, against the numpy reference of QLayerNorm."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.qlayernorm import norm_reference
from onnxcompress.ops.quantization import quantize
from onnxcompress.ops.row_quantization import quantize_rows_reference
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/norm.hpp"
static void run_norm(const oc::cuda::Norm& arguments) { oc::cuda::norm(arguments, nullptr); }
OC_EXPORT(norm, run_norm)
OC_EXPORT_SIZE(Norm)
"""


class Norm(ctypes.Structure):
    """Of csrc/cuda/norm.hpp."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int),
        ("half_input", ctypes.c_bool),
        ("half_output", ctypes.c_bool),
        ("x", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("centred", ctypes.c_bool),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("gamma", "beta", "sum", "y", "q")),
        ("q_inverse", ctypes.c_float),
        ("q_inverse_vector", ctypes.c_void_p),
        ("q_zero", ctypes.c_int),
        ("dynamic", ctypes.c_bool),
        ("row_scale", ctypes.c_void_p),
        ("row_zero", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Case:
    """Rows to normalize, and what of them. offset: the mean of x, in standard deviations."""

    rows: int
    columns: int
    centred: bool = True
    half_input: bool = False
    half_output: bool = False
    residual: bool = False
    affine: bool = True
    q: str = ""  # "static", "vector": a scale a column, "dynamic", "smooth": dynamic with a scale a column
    floats: bool = True
    offset: float = 0.5


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("norm", ["cuda/norm.cu"], BINDINGS)


def inputs_of(case: Case) -> dict[str, Array]:
    rng = np.random.default_rng(case.rows * 1009 + case.columns)
    kind = np.float16 if case.half_input else np.float32
    shape = (case.rows, case.columns)
    inputs = {"x": rng.normal(case.offset, 1, shape).astype(kind)}
    if case.residual:
        inputs["residual"] = rng.normal(0, 2, shape).astype(kind)
    if case.affine:
        inputs["gamma"] = rng.normal(1, 0.5, case.columns).astype(np.float32)
        inputs["beta"] = rng.normal(0, 1, case.columns).astype(np.float32)
    if case.q in ("vector", "smooth"):
        inputs["q_inverse_vector"] = rng.uniform(20, 40, case.columns).astype(np.float32)
    return inputs


def run(library: Emulated, case: Case, inputs: dict[str, Array]) -> dict[str, Array]:
    shape = (case.rows, case.columns)
    outputs: dict[str, Array] = {}
    if case.floats:
        outputs["y"] = np.full(shape, np.nan, np.float16 if case.half_output else np.float32)
    if case.residual:
        outputs["sum"] = np.full(shape, np.nan, inputs["x"].dtype)
    if case.q:
        outputs["q"] = np.full(shape, 99, np.uint8)
    dynamic = case.q in ("dynamic", "smooth")
    if dynamic:
        outputs["row_scale"] = np.full((case.rows, 1), np.nan, np.float32)
        outputs["row_zero"] = np.full((case.rows, 1), 99, np.uint8)
    q_inverse = 30 if case.q == "static" else 1
    arguments = library.structure(
        Norm, rows=case.rows, columns=case.columns, half_input=case.half_input, half_output=case.half_output,
        centred=case.centred, epsilon=1e-5, q_inverse=q_inverse, q_zero=110, dynamic=dynamic, **inputs, **outputs,
    )  # fmt: skip
    library.call("norm", arguments)
    return outputs


def expected_y(case: Case, inputs: dict[str, Array]) -> tuple[Array, Array]:
    """y and the sum, in double precision."""
    total = inputs["x"].astype(np.float64) + inputs.get("residual", 0)
    gamma, beta = inputs.get("gamma", np.ones(case.columns)), inputs.get("beta", np.zeros(case.columns))
    if case.centred:
        y = norm_reference({"epsilon": 1e-5, "dynamic": 0}, total, gamma, beta, None, None)[0]
        assert y is not None
        centred = total - total.mean(axis=-1, keepdims=True)
        exact = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * gamma + beta
        np.testing.assert_allclose(y, exact, rtol=1e-6, atol=1e-6)
        return exact, total
    return total / np.sqrt(np.square(total).mean(axis=-1, keepdims=True) + 1e-5) * gamma + beta, total


def check(case: Case, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
    """y to 2e-6 of max(1, |y|) and, in halves, their rounding; q exactly, but for one step in a few near a tie."""
    y, total = expected_y(case, inputs)
    if "y" in outputs:
        tolerance = 2e-6 * np.maximum(1, np.abs(y)) + (2**-11 * np.abs(y) + 2**-24 if case.half_output else 0)
        assert (np.abs(outputs["y"].astype(np.float64) - y) <= tolerance).all()
    if "sum" in outputs:
        np.testing.assert_array_equal(outputs["sum"], total.astype(inputs["x"].dtype))
    if not case.q:
        return
    smoothed = y * np.float64(inputs.get("q_inverse_vector", 30 if case.q == "static" else 1))
    if "row_scale" in outputs:
        q, scale, zero = quantize_rows_reference(smoothed)
        np.testing.assert_allclose(outputs["row_scale"], scale, rtol=3e-6)
        assert (np.abs(outputs["row_zero"].astype(int) - zero) <= 1).all()
    else:
        q = quantize(smoothed, 1, 110)
    assert (np.abs(outputs["q"].astype(int) - q) <= 1).all()
    assert (outputs["q"] != q).mean() < 3e-3 + 2 / outputs["q"].size


def check_norm(library: Emulated, case: Case) -> None:
    inputs = inputs_of(case)
    check(case, inputs, run(library, case, inputs))


COLUMNS = [1, 7, 64, 255, 256, 260, 511, 800, 1024, 1030, 2048, 2050, 4100, 8192, 8200, 9001]
"""Of every kernel, and both sides of their limits."""


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("half", [False, True])
def test_every_width(library: Emulated, order: str, columns: int, half: bool) -> None:
    rows = 9 if columns <= 1024 else 2
    check_norm(library, Case(rows, columns, half_input=half, residual=True, half_output=half, q="dynamic"))


@pytest.mark.parametrize("columns", [37, 96, 1100, 8300])
@pytest.mark.parametrize("q", ["", "static", "vector", "dynamic", "smooth"])
@pytest.mark.parametrize("centred", [True, False])
def test_outputs(library: Emulated, order: str, columns: int, q: str, centred: bool) -> None:
    check_norm(library, Case(3, columns, centred=centred, q=q))
    check_norm(library, Case(2, columns, centred=centred, q=q, affine=False, half_input=True, floats=not q))


@pytest.mark.parametrize("columns", [256, 1500, 8400])
@pytest.mark.parametrize("offset", [-1000.0, 30000.0])
def test_a_large_mean_costs_no_precision(library: Emulated, columns: int, offset: float) -> None:
    check_norm(library, Case(4, columns, offset=offset))


@pytest.mark.parametrize("columns", [40, 1200])
def test_rows_of_one_value_become_beta(library: Emulated, columns: int) -> None:
    case = Case(2, columns, q="dynamic")
    inputs = inputs_of(case)
    inputs["x"][:] = [[0], [3.25]]
    outputs = run(library, case, inputs)
    np.testing.assert_array_equal(outputs["y"], np.tile(inputs["beta"], (2, 1)))
    check(case, inputs, outputs)


@pytest.mark.parametrize("columns", [37, 1030, 8205])
@pytest.mark.parametrize("half", [False, True])
def test_ranges_end_with_the_row(library: Emulated, columns: int, half: bool) -> None:
    """Zeros beyond it would be far below all others."""
    check_norm(library, Case(2, columns, half_input=half, affine=False, offset=50, q="dynamic"))


def test_rows_of_zeros_have_the_least_scale(library: Emulated) -> None:
    case = Case(1, 50, affine=False, q="dynamic")
    inputs = {"x": np.zeros((1, 50), np.float32)}
    outputs = run(library, case, inputs)
    assert outputs["row_scale"] == np.float32(1e-12)
    assert (outputs["q"] == outputs["row_zero"]).all()


@pytest.mark.parametrize("columns", [24, 1050, 8500])
def test_a_row_that_is_not_a_number_leaves_the_others(library: Emulated, columns: int) -> None:
    case = Case(5, columns)
    inputs = inputs_of(case)
    inputs["x"][3, columns - 1] = np.nan
    y = run(library, case, inputs)["y"]
    assert np.isnan(y[3]).all() and np.isfinite(np.delete(y, 3, axis=0)).all()


def test_no_rows_need_no_launch(library: Emulated) -> None:
    assert run(library, Case(0, 8), {"x": np.zeros((0, 8), np.float32)})["y"].shape == (0, 8)
