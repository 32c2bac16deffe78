"""The CUDA convolution on tensor cores, emulated, against the numpy reference of QConv."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from onnxcompress.ops.activation import ACTIVATIONS
from onnxcompress.ops.qconv import QCONV
from tests.cuda.conftest import Emulate
from tests.cuda.emulated import Emulated
from tests.cuda.epilogue import Epilogue, activation_number, epilogue_reference

Array = np.ndarray[Any, Any]

BINDINGS = """
#include <vector>
#include "cuda/convolution.hpp"
using namespace oc::cuda;

// What a caller does: plan, pack, ask for scratch, launch. `facts`: groups, width and scratch words.
static void convolve(const int* filters, const int8_t* w, Convolution& c, int32_t* weight_sums, int* facts) {
  const ConvolutionFilters f{filters[0], filters[1], filters[2], filters[3], filters[4], filters[5], filters[6]};
  c.plan = plan_convolution(f);
  std::vector<int8_t> weights(c.plan.weight_bytes() + 16);
  std::vector<ConvolutionTap> taps(c.plan.tap_count());
  int8_t* const aligned = weights.data() + (16 - reinterpret_cast<uintptr_t>(weights.data()) % 16) % 16;
  pack_convolution(f, c.plan, w, aligned, taps.data(), weight_sums);
  c.weights = aligned, c.taps = taps.data();
  const size_t scratch = convolution_scratch(c);
  std::vector<int32_t> partial(scratch / 4, -1);
  c.partial = scratch ? partial.data() : nullptr;
  facts[0] = c.plan.groups, facts[1] = c.plan.width, facts[2] = static_cast<int>(scratch / 4);
  convolution(c, nullptr);
}
OC_EXPORT(convolve, convolve)
OC_EXPORT_SIZE(Convolution)
OC_EXPORT_SIZE(Epilogue)
"""


class Plan(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int) for name in ("groups", "outputs", "channels", "depth", "padded_depth", "width")
    )


class Convolution(ctypes.Structure):
    _fields_ = (
        ("plan", Plan),
        ("weights", ctypes.c_void_p),
        ("taps", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("batch", "height", "width", "channels", "out_height", "out_width")),
        *((name, ctypes.c_int) for name in ("stride_y", "stride_x", "top", "left")),
        ("epilogue", Epilogue),
        ("multiprocessors", ctypes.c_int),
        ("partial", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Case:
    """A convolution; `processors` decides about tiles and splits."""

    image: tuple[int, int, int, int]  # batch, height, width, channels
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    processors: int = 1
    width: int = 16
    joined_groups: int = 1
    splits: int = 1

    @property
    def size(self) -> tuple[int, int]:
        (_, h, w, _), (t, le, b, r) = self.image, self.pads
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
        return (h + t + b - reach[0]) // self.strides[0] + 1, (w + le + r - reach[1]) // self.strides[1] + 1

    @property
    def pixels(self) -> int:
        return self.image[0] * self.size[0] * self.size[1]


SAME: dict[str, Any] = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}

CASES = {
    "pointwise": Case((1, 3, 5, 16), 40),
    "pointwise of many steps": Case((1, 3, 7, 464), 33, strides=(2, 1)),
    "one pixel, one output": Case((1, 1, 1, 16), 1),
    "large tile": Case((1, 10, 15, 32), 136, **SAME),
    "large tile, 8 channels at once": Case((2, 9, 9, 24), 129, **SAME, width=8),
    "large tile, 4 channels at once": Case((1, 12, 11, 20), 130, **SAME, width=4),
    "tall tile": Case((1, 12, 13, 16), 24, **SAME),
    "tall tile, strides": Case((2, 15, 17, 8), 29, kernel=(5, 5), strides=(2, 3), pads=(2, 2, 2, 2), width=8),
    "tall tile, 4 channels": Case((1, 9, 16, 12), 20, kernel=(1, 3), pads=(0, 1, 0, 1), width=4),
    "stem": Case((1, 21, 19, 3), 40, kernel=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3), width=1),
    "stem of few outputs": Case((2, 9, 8, 3), 10, kernel=(3, 3), strides=(2, 2), pads=(0, 0, 1, 1), width=1),
    "any channels": Case((1, 5, 6, 37), 70, **SAME, width=1),
    "dilated, padded on one side": Case((1, 9, 11, 16), 65, kernel=(3, 2), pads=(0, 3, 2, 0), dilations=(2, 3)),
    "more padding than image": Case((1, 2, 1, 16), 5, kernel=(3, 3), pads=(4, 3, 2, 5)),
    "depth split": Case((1, 7, 7, 64), 71, **SAME, processors=132, splits=2),
    "depth split in many": Case((1, 3, 3, 128), 33, **SAME, processors=132, splits=4),
    "depth split, few outputs": Case((1, 3, 2, 128), 6, **SAME, processors=8, splits=4),
    "groups": Case((1, 6, 7, 192), 120, **SAME, groups=3, joined_groups=3),
    "groups split": Case((1, 4, 5, 192), 66, **SAME, groups=3, joined_groups=3, processors=12, splits=2),
    "narrow groups are joined": Case((1, 6, 5, 32), 32, **SAME, groups=8, joined_groups=1),
    "odd groups": Case((2, 5, 4, 9), 6, **SAME, groups=3, joined_groups=1, width=1),
    "depthwise with a multiplier": Case((1, 6, 5, 8), 16, **SAME, groups=8, joined_groups=1, width=8),
    "no image": Case((0, 6, 5, 16), 16, **SAME),
}


@pytest.fixture(scope="module")
def library(emulate: Emulate) -> Emulated:
    return emulate("convolution", ["cuda/convolution.cu", "cuda/convolution_pack.cpp"], BINDINGS)


def aligned(x: Array) -> Array:
    """A copy that begins at a multiple of 16 bytes, and behind whose end AddressSanitizer watches."""
    copy = np.array(x, order="C")
    assert copy.ctypes.data % 16 == 0, "malloc aligns to 16 bytes"
    return copy


class Problem:
    """Random x and w of a case. All scales are powers of 2: floats are then exact, and so is every result."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        self.case, self.rng = case, np.random.default_rng(seed)
        self.x = aligned(self.rng.integers(0, 256, case.image).astype(np.uint8))
        self.x_zero = int(self.rng.integers(1, 256))
        shape = (case.outputs, *case.kernel, case.image[3] // case.groups)
        self.w = self.rng.integers(-127, 128, shape).astype(np.int8)
        self.scale = (2.0 ** self.rng.integers(-12, -9, case.outputs)).astype(np.float32)
        self.bias = (self.rng.integers(-64, 64, case.outputs) / 16).astype(np.float32)

    def real(self, bias: bool = True) -> Array:
        """sums * scale + bias, float64 [batch, height, width, outputs]."""
        case = self.case
        attributes: dict[str, Any] = {
            **{"strides": case.strides, "pads": case.pads, "dilations": case.dilations, "group": case.groups},
            **{"x_layout": "NHWC", "y_layout": "NHWC", "residual_after": 0},
        }
        inputs: list[Array | None] = [None] * len(QCONV.inputs)
        inputs[:5] = [self.x, np.float32(1), np.uint8(self.x_zero), self.w, self.scale]  # type: ignore[list-item]
        if bias:
            inputs[5] = self.bias
        result = QCONV.reference(attributes, *inputs)[1]
        assert result is not None
        return result.astype(np.float64)

    def run(self, library: Emulated, fields: dict[str, Any], processors: int = 0) -> list[int]:
        """The kernel; the results are in fields["y"] or fields["y_float"]. Returns groups, width and splits."""
        case = self.case
        weight_sums, facts = np.zeros(case.outputs, np.int32), np.zeros(3, np.int32)
        batch, height, width, channels = case.image
        c = library.structure(
            Convolution,
            **{"x": self.x, "batch": batch, "height": height, "width": width, "channels": channels},
            **{"out_height": case.size[0], "out_width": case.size[1], "top": case.pads[0], "left": case.pads[1]},
            **{"stride_y": case.strides[0], "stride_x": case.strides[1]},
            epilogue=library.structure(
                Epilogue,
                **{"columns": case.outputs, "x_zero": self.x_zero, "weight_sums": weight_sums, "scale": self.scale},
                **fields,
            ),
            multiprocessors=processors or case.processors,
        )
        filters = np.array(
            [case.outputs, *case.kernel, channels // case.groups, case.groups, *case.dilations], np.int32
        )
        library.call("convolve", filters, self.w, c, weight_sums, facts)
        np.testing.assert_array_equal(weight_sums, self.w.astype(np.int32).sum(axis=(1, 2, 3)))
        words = max(case.pixels * case.outputs, 1)
        return [int(facts[0]), int(facts[1]), max(int(facts[2]) // words, 1)]


def guarded(count: int, dtype: type, offset: int = 0) -> tuple[Array, Array]:
    """An array of `count` values, `offset` values behind a multiple of 16 bytes, and all of what it lies in."""
    room = aligned(np.full(count + 48, 0xA5, dtype))
    return room[16 + offset : 16 + offset + count], room


def check_guards(room: Array, count: int, offset: int = 0) -> None:
    assert (np.delete(room, np.s_[16 + offset : 16 + offset + count]) == 0xA5).all(), "written out of bounds"


@pytest.mark.parametrize("name", CASES)
def test_bytes_are_those_of_the_reference(library: Emulated, order: str, name: str) -> None:
    case = CASES[name]
    problem = Problem(case)
    count = case.pixels * case.outputs
    y, room = guarded(count, np.uint8)
    fields = {"bias": problem.bias, "y": y, "y_inverse": 1.0, "y_zero": 119}
    facts = problem.run(library, fields)
    assert facts == [case.joined_groups, case.width, case.splits]
    expected = epilogue_reference(problem.real(), fields)
    np.testing.assert_array_equal(y.reshape(expected.shape), expected)
    check_guards(room, count)


EPILOGUE_CASES = {
    "whole": Case((1, 6, 12, 16), 40, **SAME),
    "ragged": Case((1, 5, 7, 16), 67),
    "split": Case((1, 3, 5, 128), 36, **SAME, processors=40),
}


@pytest.mark.parametrize("name", EPILOGUE_CASES)
@pytest.mark.parametrize("kind", ["plain", "table", "residual", "after", "vector", "unaligned"])
def test_epilogues_of_bytes(library: Emulated, order: str, name: str, kind: str) -> None:
    case = EPILOGUE_CASES[name]
    problem = Problem(case, 1)
    shape = (*[case.image[0], *case.size], case.outputs)
    offset = 3 if kind == "unaligned" else 0
    y, room = guarded(int(np.prod(shape)), np.uint8, offset)
    fields: dict[str, Any] = {"y": y, "y_inverse": 2.0, "y_zero": 77}
    if kind in ("table", "after"):
        fields["table"] = problem.rng.permutation(256).astype(np.uint8)
    if kind in ("residual", "after", "unaligned"):
        fields["residual_bytes"] = aligned(problem.rng.integers(0, 256, shape).astype(np.uint8))
        fields |= {"residual_scale": 0.25, "residual_zero": 101}
    if kind == "after":
        fields |= {"residual_after": True, "inner_scale": 0.5, "inner_zero": 9, "final_inverse": 1.0, "final_zero": 50}
    if kind == "vector":
        fields["y_inverse_vector"] = (2.0 ** problem.rng.integers(-1, 2, case.outputs)).astype(np.float32)
    problem.run(library, fields)
    expected = epilogue_reference(problem.real(bias=False), fields)
    np.testing.assert_array_equal(y.reshape(shape), expected)
    check_guards(room, y.size, offset)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(library: Emulated, activation: str) -> None:
    case = EPILOGUE_CASES["whole"]
    problem = Problem(case, 2)
    y, _ = guarded(case.pixels * case.outputs, np.uint8)
    problem.scale /= 8
    fields = {"bias": problem.bias, "y": y, "y_inverse": 8.0, "y_zero": 60, "activation": activation_number(activation)}
    problem.run(library, fields)
    expected = epilogue_reference(problem.real(), fields, activation).astype(int)
    difference = np.abs(y.reshape(expected.shape).astype(int) - expected)
    # A byte may differ by one where the activation's rounding crosses the middle between two.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.001
    assert len(np.unique(y)) > 50


@pytest.mark.parametrize("name", EPILOGUE_CASES)
@pytest.mark.parametrize("layout", ["channels last", "channels first"])
@pytest.mark.parametrize("residual", [False, True])
def test_floats(library: Emulated, order: str, name: str, layout: str, residual: bool) -> None:
    case = EPILOGUE_CASES[name]
    problem = Problem(case, 3)
    shape = (case.image[0], *case.size, case.outputs)
    y, room = guarded(int(np.prod(shape)), np.float32)
    fields: dict[str, Any] = {"y_float": y, "bias": problem.bias}
    if layout == "channels first":
        fields["channels_first_pixels"] = case.size[0] * case.size[1]
    if residual:
        fields["residual_bytes"] = aligned(problem.rng.integers(0, 256, shape).astype(np.uint8))
        fields |= {"residual_scale": 0.25, "residual_zero": 101}
    problem.run(library, fields)
    expected = epilogue_reference(problem.real(), fields)
    if layout == "channels first":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(y, expected.astype(np.float32).ravel())
    check_guards(room, y.size)


def test_real_scales_are_within_a_step(library: Emulated) -> None:
    case = EPILOGUE_CASES["whole"]
    problem = Problem(case, 4)
    problem.scale = (problem.rng.random(case.outputs) * 1e-3 + 1e-5).astype(np.float32)
    problem.bias = problem.rng.standard_normal(case.outputs).astype(np.float32)
    y, _ = guarded(case.pixels * case.outputs, np.uint8)
    fields = {"bias": problem.bias, "y": y, "y_inverse": float(np.float32(1 / 0.37)), "y_zero": 128}
    problem.run(library, fields)
    expected = epilogue_reference(problem.real(), fields).astype(int)
    difference = np.abs(y.reshape(expected.shape).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.001


def test_extreme_values(library: Emulated) -> None:
    """The largest sums there are, of both signs, and floats that are no numbers."""
    case = Case((1, 2, 2, 1040), 3)
    problem = Problem(case, 5)
    problem.x[:, 0], problem.x[:, 1], problem.x_zero = 255, 0, 0
    problem.w[0], problem.w[1], problem.w[2] = 127, -128, 0
    problem.bias[2] = np.nan
    y, _ = guarded(case.pixels * case.outputs, np.uint8)
    fields = {"bias": problem.bias, "y": y, "y_inverse": 1e6, "y_zero": 3}
    problem.run(library, fields)
    expected = [[255, 0, 0]] * 2 + [[255 if problem.bias[0] > 0 else 0, 255 if problem.bias[1] > 0 else 0, 0]] * 2
    np.testing.assert_array_equal(y.reshape(4, 3), expected)
