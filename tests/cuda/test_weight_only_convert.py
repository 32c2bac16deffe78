"""Floats to halves on a device, emulated, against numpy."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated

BINDINGS = """
#include "cuda/weight_only_convert.hpp"
using namespace oc::cuda;
static void convert(const ConvertToHalves& arguments) { convert_to_halves(arguments, nullptr); }
OC_EXPORT(convert, convert)
OC_EXPORT_SIZE(ConvertToHalves)
"""


class ConvertToHalves(ctypes.Structure):
    """Of csrc/cuda/weight_only_convert.hpp."""

    _fields_ = (("x", ctypes.c_void_p), ("y", ctypes.c_void_p), ("count", ctypes.c_int64))


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("weight_only_convert", ["cuda/weight_only_convert.cu"], BINDINGS)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 2048, 2049, 5001])
def test_all_values_and_no_more(library: Emulated, order: str, count: int) -> None:
    x = np.random.default_rng(count).normal(0, 1, count + 1).astype(np.float32)
    y = np.full(count + 8, 7, np.float16)
    library.call("convert", library.structure(ConvertToHalves, x=x, y=y, count=count))
    np.testing.assert_array_equal(y[:count], x[:count].astype(np.float16))
    assert (y[count:] == 7).all()


def test_ties_and_what_halves_cannot_hold(library: Emulated) -> None:
    values = [0, -0.0, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65519.9, 65520, -1e30, 2**-24, 2**-25, 3 * 2**-26, 1e-30,
              np.inf, -np.inf, np.nan]  # fmt: skip
    x = np.array(values, np.float32)
    y = np.zeros(len(values), np.float16)
    library.call("convert", library.structure(ConvertToHalves, x=x, y=y, count=len(values)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y, x.astype(np.float16))
    assert np.signbit(y[1])
