"""What a hostile model may say of any operator, found by the fuzzer of the kernels (tests/fuzz/kernels).

Each was undefined behaviour, memory or time out of proportion to the model, or an output that is not there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxcompress.ops import OPS
from onnxcompress.runtime import library
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Array, Case
from tests.ops.refusals import altered, changed, refuses

_FIRST = {op: next(case for case in ALL if case.op == op and np.asarray(case.inputs[0]).ndim > 1) for op in OPS}
_HUGE = 1 << 40


def named(op: str, name: str) -> Case:
    return next(case for case in ALL if (case.op, case.name) == (op, name))


def without_elements(x: Array, axis: int) -> Array:
    """An empty array of the rank and type of x, one other axis of which no memory holds."""
    shape = list(x.shape)
    shape[axis], shape[axis - 1] = _HUGE, 0
    return np.zeros(shape, x.dtype)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_size_that_no_memory_holds_is_refused_where_nothing_is_in_it(op: str, axis: int) -> None:
    case = _FIRST[op]
    first = 1 if op == "QConcat" else 0
    refuses(altered(case, first, lambda x: without_elements(x, axis)), "shape is out of range")


@pytest.mark.parametrize("op", ["QTable", "QResize", "QPool", "DequantizeNCHW", "QuantizeNHWC", "QSqueezeExcite"])
def test_the_product_of_sizes_is_refused_too(op: str) -> None:
    """Each fits an int, their product no memory."""
    case = _FIRST[op]
    huge = (1 << 30, (1 << 30), 1)
    refuses(altered(case, 0, lambda x: np.zeros((0, *huge), x.dtype)), "shape is out of range")


@pytest.mark.parametrize(
    ("op", "asked"),
    [
        ("QLinear", ("y", "y_row_scale", "y_row_zero_point")),
        ("QSparseLinear", ("y", "y_row_scale", "y_row_zero_point")),
    ],
)
def test_an_output_that_is_not_computed_is_refused(op: str, asked: tuple[str, ...]) -> None:
    """Operators behind it would find nothing, or pass on nothing."""
    model = forms.model(replace(_FIRST[op], outputs=asked), functions=False)
    reader = onnx.helper.make_node("Identity", ["y_row_scale"], ["read"])
    model.graph.node.append(reader)
    next(output for output in model.graph.output if output.name == "y_row_scale").name = "read"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    library.register(options)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {given.name: _FIRST[op].inputs[int(given.name[1:])] for given in session.get_inputs()}
    with pytest.raises(Exception, match="output 2 is not computed"):
        session.run(None, feeds)


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, np.uint8)


_CONV = named("QConv", "3x3")
_TRANSPOSED = named("QConvTranspose", "2x2")
_SPARSE = named("QSparseConv", "3x3, blocks of 4")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        # The copy of the lines that one line of the output needs would have 8 GB.
        (
            changed(_CONV, {0: _zeros(1, 1, 1, 32)}, pads=(65536, 65536, 65536, 65536), strides=(65536, 65536),
                    dilations=(60000, 1)),
            "too far apart",
        ),
        (changed(_CONV, {0: _zeros(1, 0, 4, 32)}, pads=(3, 3, 3, 3)), "the image is empty"),
        # 16 MB of lines for each of two pixels.
        (changed(_SPARSE, {0: _zeros(1, 1, 1, 32)}, pads=(4096,) * 4, dilations=(4096, 4096), strides=(4096, 4096)),
         "a line of x is too large"),
        (changed(_TRANSPOSED, {3: np.zeros((65537, 1, 1, 32), np.int8)}), "too many outputs"),
        (changed(_TRANSPOSED, {3: np.zeros((1, 4097, 1, 32), np.int8)}), "too high a window"),
        (changed(_FIRST["QPool"], kernel_shape=(1026, 1026), pads=(1025, 1025, 1025, 1025)), "at most 1024"),
        # A window that reaches far beyond a row of 4096 bytes, which was copied with 16 GB behind it.
        (changed(_FIRST["QPool"], {0: _zeros(1, 1, 1, 4096)}, kernel_shape=(1, 1 << 20), strides=(1, 1 << 20),
                 pads=(0, 0, 0, 0)),
         "so many channels"),
    ],
    ids=["conv", "no image", "sparse", "outputs", "window", "pads of a pool", "pool"],
)  # fmt: skip
def test_memory_out_of_proportion_is_refused(case: Case, message: str) -> None:
    refuses(case, message)


def test_no_channels_of_many_images_take_no_time() -> None:
    """A loop over 2^31 images that have nothing in them."""
    x, mask = np.zeros(((1 << 31) - 1, 0, 0), np.float32), np.zeros(((1 << 31) - 1, 0), np.int64)
    y = forms.kernel(changed(_FIRST["MeanPool"], {0: x, 1: mask}, normalize=1), "")["y"]
    assert y.shape == ((1 << 31) - 1, 0)


@pytest.mark.parametrize("op", ["QSparseLinear", "QSparseConv"])
def test_no_blocks_have_no_values(op: str) -> None:
    """A pointer to nowhere is not moved (blocks of 16 are counted in four parts)."""
    case: Any = named(op, "no blocks of 16" if op == "QSparseLinear" else "no blocks")
    values = np.zeros((0, 16, 4), np.int8)
    start = np.zeros((-(-case.inputs[6].size // 16)) + 1, np.int32)
    case = changed(case, {3: values, 4: start})
    for instruction_set in forms.instruction_sets():
        actual, expected = forms.kernel(case, instruction_set), forms.reference(case)
        assert np.abs(actual["y"].astype(int) - expected["y"]).max() <= 1


def test_factors_of_many_small_images_are_not_all_kept() -> None:
    """A value per channel and image: the same result as image by image."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (70, 3, 2, 5)).astype(np.uint8), rng.integers(0, 256, (70, 1, 1, 5)).astype(np.uint8)
    base = named("QElementwise", "bytes per channel, mul, 6 channels")
    y = forms.kernel(changed(base, {0: a, 3: b}), "")["y"]
    for i in range(0, 70, 23):
        one = forms.kernel(changed(base, {0: a[i : i + 1], 3: b[i : i + 1]}), "")["y"]
        np.testing.assert_array_equal(y[i : i + 1], one)


@pytest.mark.parametrize("op", ["QLinear", "QLinear4", "QSparseLinear", "QConv", "QSparseConv", "QConvTranspose"])
def test_a_bias_that_is_not_a_number_becomes_the_byte_0(op: str) -> None:
    """As in the reference; a table then has the last word. Greater than all bytes would be 255."""
    bias = OPS[op].names(len(OPS[op].inputs)).index("bias")
    for case in ALL:
        plain = case.op == op and case.outputs == ("y",) and not case.attributes.get("activation")
        x, given = case.inputs[0], case.inputs[bias] if plain and len(case.inputs) > bias else None
        if x is None or given is None or x.size == 0 or given.size < 2:
            continue
        values = given.copy()
        values[1] = np.nan
        spoilt = changed(case, {bias: values})
        axis = 1 if case.attributes.get("y_layout") == "NCHW" else -1
        wanted = np.take(forms.reference(spoilt)["y"], 1, axis)
        for instruction_set in forms.instruction_sets():
            found = np.take(forms.kernel(spoilt, instruction_set)["y"], 1, axis)
            np.testing.assert_array_equal(found, wanted, err_msg=f"{case} {instruction_set}")
