"""Placement for our own operators: which tensors get pairs, which share a scale, and where ranges are cut."""

from __future__ import annotations

import math

import pytest

from onnxcompress.passes.quantize import Scheme, plan_quantization
from onnxcompress.passes.quantize.plan import Plan, group_ranges
from tests.passes.lower.networks import network
from tests.passes.quantize.models import decision

NATIVE = Scheme(native=True)


def plan_of(body: str, signature: str | None = None) -> Plan:
    return plan_quantization(network(body) if signature is None else network(body, signature), NATIVE)


@pytest.mark.parametrize(
    ("body", "tensors"),
    [
        # Nothing inside a chain; the activation that saturation does counts as the convolution's own.
        ("a = Same (x, w)\nr = Relu (a)\nh = HardSwish (r)\no = Add (h, half)\ny = Conv (o, v)", "x r o"),
        ("a = Same (x, w)\ng = Sigmoid (a)\nm = Mul (a, g)\ny = Conv (m, v)", "x a m"),
        # A head stays float, a function of one is made of bytes.
        ("a = Same (x, w)\ny = Conv (a, v)", "x a"),
        ("a = Same (x, w)\ny = Sigmoid (a)", "x a"),
        # Cores between convolutions; those that only move values to float readers stay float.
        ("a = Same (x, w)\np = MaxPool <kernel_shape = [2, 2]> (a)\ny = Conv (p, v)", "x a p"),
        ("a = Same (x, w)\ny = MaxPool <kernel_shape = [2, 2]> (a)", "x"),
        ("a = Same (x, w)\np = AveragePool <kernel_shape = [2, 2]> (a)\ny = Softmax (p)", "x a p"),
        ("a = Same (x, w)\nc = Conv (x, v)\ns = Sub (a, c)\ny = Conv (s, u)", "x a c s"),
        ("a = ConvTranspose <strides = [2, 2]> (x, t)\nr = Relu (a)\ny = Conv (r, v)", "x r"),
        # What does not come from int8 alone: the other operand is float.
        ("a = Same (x, w)\ns = Add (a, x)\ny = Conv (s, v)", "x s"),
    ],
)
def test_tensors_with_pairs(body: str, tensors: str) -> None:
    assert set(plan_of(body).tensors) == set(tensors.split())


def test_only_inputs_that_nobody_else_reads_take_the_scale_of_a_concatenation() -> None:
    plan = plan_of("a = Same (x, w)\nb0 = Conv (a, v)\nc = Concat <axis = 1> (a, b0)\ny = Conv (c, wide)")
    assert plan.groups["b0"] == plan.groups["c"] != plan.groups["a"]


def test_moved_values_keep_their_scale() -> None:
    plan = plan_of("a = Same (x, w)\np = MaxPool <kernel_shape = [2, 2]> (a)\ny = Conv (p, v)")
    assert plan.groups["a"] == plan.groups["p"]


@pytest.mark.parametrize(
    ("body", "limits"),
    [
        ("a = Same (x, w)\nh = HardSwish (a)\ny = Conv (h, v)", (-3.0, math.inf)),
        ("a = Same (x, w)\nm = Mul (a, two)\ns = Sub (m, half)\nh = HardSwish (s)\ny = Conv (h, v)", (-1.25, math.inf)),
        ("a = Same (x, w)\ns = Sub (half, a)\ng = Sigmoid (s)\ny = Conv (g, v)", (-9.5, 10.5)),
        ("a = Same (x, w)\ng = Sigmoid (a)\nm = Mul (a, g)\ny = Conv (m, v)", (-10.0, math.inf)),
        ("a = Same (x, w)\nq = com.microsoft.QuickGelu <alpha = 2.0> (a)\ny = Conv (q, v)", (-5.0, math.inf)),
        ("a = Same (x, w)\nh = HardSwish (a)\ni = Conv (h, v)\nj = Conv (a, u)\ny = Add (i, j)", None),
    ],
)
def test_ranges_are_cut_where_all_readers_saturate(body: str, limits: tuple[float, float] | None) -> None:
    plan = plan_of(body)
    assert plan.limits.get("a") == limits
    low, high = group_ranges(plan, dict.fromkeys(plan.tensors, (-100.0, 100.0)))["a"]
    least, greatest = limits or (-math.inf, math.inf)
    assert (low, high) == (max(-100.0, least), min(100.0, greatest))


def test_transposed_convolutions_are_quantized_without_groups_only() -> None:
    assert decision(plan_of("y = ConvTranspose (x, t)").decisions, "ConvTranspose_0") == (True, "int8")
    grouped = plan_of("y = ConvTranspose <group = 2> (x, t)", "(float[N, 16, H, W] x) => (float[N, 32, P, Q] y)")
    assert not decision(grouped.decisions, "ConvTranspose_0")[0]


def test_excluded_nodes_stay_float() -> None:
    model = network("a = Same (x, w)\np = AveragePool <kernel_shape = [2, 2]> (a)\ny = Conv (p, v)")
    plan = plan_quantization(model, Scheme(native=True, exclude=frozenset({"AveragePool_1"})))
    assert not plan.followers and set(plan.tensors) == {"x", "p"}
