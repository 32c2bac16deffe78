"""Scales, zero points and rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcompress.passes.quantize import Scheme, arithmetic
from onnxcompress.passes.quantize.scheme import type_limits

DTYPES = [ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16]
numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@settings(max_examples=200, deadline=None)
@given(numbers, numbers, st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from(DTYPES))
def test_error_is_at_most_half_a_scale_within_the_range(
    a: float, b: float, where: list[float], dtype: ir.DataType
) -> None:
    low, high = min(a, b), max(a, b)
    given_range = arithmetic.parameters(low, high, dtype)
    values = np.array([low + (high - low) * w for w in where], np.float32)
    least, greatest = given_range.interval
    # The rounding of the zero point moves the interval by up to half a step against [low, high].
    inside = np.clip(values, least, greatest)
    back = given_range.dequantize(given_range.quantize(values))
    slack = 1e-6 * max(abs(low), abs(high)) + 1e-30
    assert np.all(np.abs(back - inside) <= given_range.scale * 0.5 + slack)
    assert np.all(np.abs(values - inside) <= given_range.scale * 0.5 + slack)


@settings(max_examples=200, deadline=None)
@given(numbers, numbers, st.sampled_from(DTYPES))
def test_zero_is_exact(a: float, b: float, dtype: ir.DataType) -> None:
    found = arithmetic.parameters(min(a, b), max(a, b), dtype)
    zero = found.quantize(np.zeros(3, np.float32))
    assert np.all(zero == found.zero_point)
    assert np.all(found.dequantize(zero) == 0)
    low, high = type_limits(dtype)
    assert low <= found.zero_point <= high
    assert found.scale > 0 and np.isfinite(found.scale)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, 16, elements=st.floats(-3, 3, width=32)), numbers, numbers, st.sampled_from(DTYPES))
def test_agrees_with_onnx(shares: Any, a: float, b: float, dtype: ir.DataType) -> None:
    values = shares * np.float32(max(abs(a), abs(b)))
    found = arithmetic.parameters(min(a, b), max(a, b), dtype)
    name = dtype.name.lower()
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[16] x, float s, {name} z) => ({name}[16] q, float[16] y) {{
        q = QuantizeLinear (x, s, z)
        y = DequantizeLinear (q, s, z)
    }}"""
    feed = {"x": values, "s": np.float32(found.scale), "z": np.array(found.zero_point, dtype.numpy())}
    q, y = map(np.asarray, onnx.reference.ReferenceEvaluator(onnx.parser.parse_model(text)).run(None, feed))
    np.testing.assert_array_equal(found.quantize(values), q)
    np.testing.assert_allclose(found.dequantize(q), y, rtol=1e-6)


def test_signed_types_are_symmetric() -> None:
    found = arithmetic.parameters(-1.0, 3.0, ir.DataType.INT8)
    assert found.zero_point == 0
    assert found.scale == pytest.approx(3 / 127)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_range_has_scale_one(dtype: ir.DataType) -> None:
    assert arithmetic.parameters(0.0, 0.0, dtype).scale == 1
    assert arithmetic.parameters(-1e-30, 1e-30, dtype).scale == 1


def test_range_is_widened_to_hold_zero() -> None:
    least, greatest = arithmetic.parameters(2.0, 5.0, ir.DataType.UINT8).interval
    assert least == 0 and greatest == pytest.approx(5.0)
    least, greatest = arithmetic.parameters(-5.0, -2.0, ir.DataType.UINT8).interval
    assert least == pytest.approx(-5.0) and greatest == 0


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (5, 7), elements=numbers), st.sampled_from([0, 1]), st.sampled_from([127, 63]))
def test_weight_error_is_at_most_half_a_scale(weight: Any, axis: int, limit: int) -> None:
    scales = arithmetic.weight_scales(weight, axis, limit)
    integers = arithmetic.quantize_weight(weight, scales, axis, limit)
    assert np.abs(integers.astype(int)).max() <= limit
    back = arithmetic.dequantize_weight(integers, scales, axis)
    bound = scales.reshape((-1, 1) if axis == 0 else (1, -1)) * 0.5001
    assert np.all(np.abs(back - weight) <= bound)
    assert np.all(back[weight == 0] == 0)


def test_channel_of_zeros_has_scale_one() -> None:
    scales = arithmetic.weight_scales(np.array([[0.0, 0.0], [1.0, -2.0]], np.float32), 0)
    np.testing.assert_allclose(scales, [1, 2 / 127])


def test_weight_scales_of_an_empty_weight() -> None:
    assert arithmetic.weight_scales(np.zeros((0, 3), np.float32), 0).size == 0


def test_type_limits() -> None:
    assert type_limits(ir.DataType.INT4) == (-8, 7)
    assert type_limits(ir.DataType.UINT4) == (0, 15)
    assert type_limits(ir.DataType.UINT16) == (0, 65535)


def test_reduced_range_has_seven_bits() -> None:
    assert Scheme(reduced_range=True).weight_limit == 63
    assert Scheme().weight_limit == 127
