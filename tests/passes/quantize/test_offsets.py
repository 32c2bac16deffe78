"""Offsets behind activations become whole numbers of steps, at no one's expense."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.quantize import plan_quantization
from onnxcompress.passes.quantize.offsets import LARGEST_WIDENING, whole_offsets
from onnxcompress.passes.quantize.plan import group_ranges
from tests.passes.lower.networks import IMAGE, NATIVE, lowered, network, quantized
from tests.passes.quantize.models import execute, min_max, relative

SHIFTED = "a = Same (x, w)\nh = HardSwish (a)\n"


def steps(body: str, high: float = 8.3) -> tuple[ir.Model, float, float]:
    """The model after the pass has seen `o` in [-0.5, high]: offset and scale of `o`."""
    model = network(body)
    plan = plan_quantization(model, NATIVE)
    ranges = {name: (-0.5, high) for name in plan.tensors}
    given = whole_offsets(model, plan, group_ranges(plan, ranges))["o"]
    producer = next(node for node in model.graph if node.outputs[0].name == "o")
    constant = producer.inputs[1]
    assert constant is not None and constant.const_value is not None
    return model, float(constant.const_value.numpy().reshape(())), given.scale


@pytest.mark.parametrize(
    "readers",
    ["y = Conv (o, v)", "y = Conv <pads = [1, 1, 1, 1], group = 16> (o, d, b)", "c = Conv (o, v)\ny = Conv (c, u)"],
)
@pytest.mark.parametrize("operation", ["Add", "Sub"])
def test_readers_take_what_is_left_of_the_offset(operation: str, readers: str) -> None:
    body = f"{SHIFTED}o = {operation} (h, half)\n{readers}"
    model, offset, scale = steps(body)
    assert offset / scale == pytest.approx(round(offset / scale), abs=1e-4)
    assert 0 < abs(offset - 0.5) <= scale / 2
    (expected,), (actual,) = (execute(m, IMAGE) for m in (network(body), model))
    inside = (..., slice(1, -1), slice(1, -1))  # where nothing is padded
    np.testing.assert_allclose(actual[inside], expected[inside], atol=1e-4)
    assert 0 <= relative(actual, expected) < 0.02


@pytest.mark.parametrize(("high", "widened"), [(20.0, True), (70.0, False)])
def test_other_readers_get_a_wider_scale_within_limits(high: float, widened: bool) -> None:
    """0.5 is 6.2 steps of 20.5 / 255, and 1.8 steps of 70.5 / 255."""
    body = f"{SHIFTED}o = Add (h, half)\np = AveragePool <kernel_shape = [2, 2]> (o)\ny = Conv (p, v)"
    _, offset, scale = steps(body, high)
    assert offset == 0.5
    plain = (high + 0.5) / 255
    if widened:
        assert offset / scale == pytest.approx(round(offset / scale)) and plain < scale <= LARGEST_WIDENING * plain
    else:
        assert scale == pytest.approx(plain)


def test_the_function_body_computes_the_activation_then() -> None:
    body = f"{SHIFTED}m = Mul (h, two)\no = Add (m, half)\ny = Conv <pads = [1, 1, 1, 1], group = 16> (o, d)"
    model = network(body)
    result = lowered(quantized(model), hints=True)
    (kind,) = (node.attributes["table_as"].value for node in result.lowered.graph if "table_as" in node.attributes)
    assert kind == "hardswish"
    for actual in (execute(result.qdq, IMAGE)[0], result.outputs()[1][0], result.outputs(native=True)[1][0]):
        assert relative(actual, execute(model, IMAGE)[0]) < 0.05


def test_constants_that_others_read_are_left_to_them() -> None:
    body = (
        f"{SHIFTED}o = Add (h, half)\nc = Conv <pads = [1, 1, 1, 1]> (o, w, b)\nd2 = Conv (c, v, b)\ny = Add (d2, half)"
    )
    model = network(body)
    ranges = min_max(model, NATIVE, IMAGE)
    plan = plan_quantization(model, NATIVE)
    before = execute(network(body), IMAGE)[0]
    whole_offsets(model, plan, group_ranges(plan, ranges))
    last = next(node for node in model.graph if node.outputs[0].name == "y").inputs[1]
    assert last is not None and last.const_value is not None and last.const_value.numpy().tolist() == [0.5]
    assert relative(execute(model, IMAGE)[0], before) < 0.02
