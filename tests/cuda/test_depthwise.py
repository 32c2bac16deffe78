"""The CUDA depthwise convolution, emulated, against the numpy reference of QConv."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.activation import ACTIVATIONS
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated
from tests.cuda.epilogue import Epilogue, activation_number, epilogue_reference
from tests.cuda.test_convolution import SAME, Case, Problem, aligned, check_guards, guarded

Array = np.ndarray[Any, Any]

BINDINGS = """
#include "cuda/depthwise.hpp"
using namespace oc::cuda;

// `weights` has the room that depthwise_pitch() tells of.
static void convolve(const int8_t* w, Depthwise& d, int8_t* weights, int32_t* weight_sums) {
  pack_depthwise(w, d.channels, d.kernel_h * d.kernel_w, weights, weight_sums);
  d.weights = weights;
  depthwise(d, nullptr);
}
OC_EXPORT(convolve, convolve)
OC_EXPORT_SIZE(Depthwise)
OC_EXPORT_SIZE(Epilogue)
"""


class Depthwise(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("batch", "height", "width", "channels", "out_height", "out_width")),
        *((name, ctypes.c_int) for name in ("kernel_h", "kernel_w", "stride_y", "stride_x")),
        *((name, ctypes.c_int) for name in ("dilation_y", "dilation_x", "top", "left")),
        ("epilogue", Epilogue),
    )


def case(image: tuple[int, int, int, int], **options: Any) -> Case:
    return Case(image, image[3], groups=image[3], **options)


FIVE: dict[str, Any] = {"kernel": (5, 5), "pads": (2, 2, 2, 2)}

CASES = {
    "3x3": case((1, 6, 9, 32), **SAME),
    "3x3, more channels than a block": case((1, 3, 4, 1040), **SAME),
    "3x3 by steps of 2": case((2, 7, 10, 24), **SAME, strides=(2, 2)),
    "3x3 by steps of 2 down only": case((1, 8, 7, 8), **SAME, strides=(2, 1)),
    "3x3, no padding": case((1, 5, 6, 12), kernel=(3, 3)),
    "5x5": case((1, 6, 7, 16), **FIVE),
    "5x5 by steps of 2": case((1, 9, 11, 4), **FIVE, strides=(2, 2)),
    "3x3 by steps of 3": case((1, 9, 10, 8), **SAME, strides=(3, 3)),
    "7x7": case((1, 8, 9, 16), kernel=(7, 7), pads=(3, 3, 3, 3)),
    "1x1": case((1, 2, 3, 8)),
    "long": case((2, 5, 9, 20), kernel=(1, 5), pads=(0, 3, 0, 1)),
    "dilated": case((1, 9, 8, 8), kernel=(3, 3), pads=(2, 2, 3, 1), dilations=(2, 2)),
    "odd channels": case((2, 4, 5, 7), **SAME),
    "one channel": case((1, 5, 4, 1), **FIVE),
    "odd channels, dilated by steps": case((1, 9, 10, 35), kernel=(2, 3), dilations=(3, 2), strides=(2, 3)),
    "more padding than image": case((1, 1, 2, 4), kernel=(3, 3), pads=(4, 4, 4, 4)),
    "no image": case((0, 6, 5, 16), **SAME),
}


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("depthwise", ["cuda/depthwise.cu", "cuda/convolution_pack.cpp"], BINDINGS)


def run(library: Emulated, problem: Problem, fields: dict[str, Any]) -> None:
    """The kernel; the results are in fields["y"] or fields["y_float"]."""
    c = problem.case
    taps, channels = c.kernel[0] * c.kernel[1], c.image[3]
    weights, sums = aligned(np.full((taps, -(-channels // 4) * 4), 99, np.int8)), np.zeros(channels, np.int32)
    d = library.structure(
        Depthwise,
        **{"x": problem.x, "batch": c.image[0], "height": c.image[1], "width": c.image[2], "channels": channels},
        **{"out_height": c.size[0], "out_width": c.size[1], "kernel_h": c.kernel[0], "kernel_w": c.kernel[1]},
        **{"stride_y": c.strides[0], "stride_x": c.strides[1], "top": c.pads[0], "left": c.pads[1]},
        **{"dilation_y": c.dilations[0], "dilation_x": c.dilations[1]},
        epilogue=library.structure(
            Epilogue,
            **{"columns": channels, "x_zero": problem.x_zero, "weight_sums": sums, "scale": problem.scale},
            **fields,
        ),
    )
    library.call("convolve", problem.w, d, weights, sums)
    np.testing.assert_array_equal(sums, problem.w.astype(np.int32).sum(axis=(1, 2, 3)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
def test_bytes_are_those_of_the_reference(library: Emulated, order: str, name: str, offset: int) -> None:
    problem = Problem(CASES[name])
    if offset:
        shifted = aligned(np.zeros(problem.x.size + 1, np.uint8))[1:].reshape(problem.x.shape)
        shifted[...] = problem.x
        problem.x = shifted
    y, room = guarded(problem.case.pixels * problem.case.outputs, np.uint8, offset)
    fields = {"bias": problem.bias, "y": y, "y_inverse": 8.0, "y_zero": 119}
    run(library, problem, fields)
    expected = epilogue_reference(problem.real(), fields)
    np.testing.assert_array_equal(y.reshape(expected.shape), expected)
    check_guards(room, y.size, offset)


@pytest.mark.parametrize("name", ["3x3", "odd channels"])
@pytest.mark.parametrize("kind", ["table", "residual", "after", "float", "first"])
def test_epilogues(library: Emulated, order: str, name: str, kind: str) -> None:
    problem = Problem(CASES[name], 1)
    c, rng = problem.case, problem.rng
    shape = (c.image[0], *c.size, c.outputs)
    floats = kind in ("float", "first")
    y, room = guarded(int(np.prod(shape)), np.float32 if floats else np.uint8)
    fields: dict[str, Any] = {"y_float": y} if floats else {"y": y, "y_inverse": 8.0, "y_zero": 119}
    if kind in ("table", "after"):
        fields["table"] = rng.permutation(256).astype(np.uint8)
    if kind in ("residual", "after", "float"):
        fields["residual_bytes"] = aligned(rng.integers(0, 256, shape).astype(np.uint8))
        fields |= {"residual_scale": 0.25, "residual_zero": 101}
    if kind == "after":
        fields |= {"residual_after": True, "inner_scale": 0.5, "inner_zero": 9, "final_inverse": 1.0, "final_zero": 50}
    if kind == "first":
        fields["channels_first_pixels"] = c.size[0] * c.size[1]
    run(library, problem, fields)
    expected = epilogue_reference(problem.real(bias=False), fields)
    if kind == "first":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(y, expected.astype(y.dtype).ravel())
    check_guards(room, y.size)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(library: Emulated, activation: str) -> None:
    problem = Problem(CASES["5x5"], 2)
    y, _ = guarded(problem.case.pixels * problem.case.outputs, np.uint8)
    fields = {"bias": problem.bias, "y": y, "y_inverse": 8.0, "y_zero": 60, "activation": activation_number(activation)}
    run(library, problem, fields)
    expected = epilogue_reference(problem.real(), fields, activation).astype(int)
    difference = np.abs(y.reshape(expected.shape).astype(int) - expected)
    # A byte may differ by one where the activation's rounding crosses the middle between two.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.003
    assert len(np.unique(y)) > 50


def test_more_rows_than_a_grid_has(library: Emulated) -> None:
    problem = Problem(case((1, 65540, 1, 1)))
    y, room = guarded(65540, np.uint8)
    fields = {"y": y, "y_inverse": 8.0, "y_zero": 3}
    run(library, problem, fields)
    np.testing.assert_array_equal(y, epilogue_reference(problem.real(bias=False), fields).ravel())
    check_guards(room, y.size)
