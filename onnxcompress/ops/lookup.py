"""A table of 256 bytes in a function body, in operators that ONNX Runtime runs fast.

It has none for it. Gather with an index for every byte takes 3 to 10 ns a byte, GatherElements on a flat tensor 0.8;
two bounds 0.05, Sigmoid between DequantizeLinear and QuantizeLinear 0.3 (it makes a table of its own of them),
HardSwish as integer sum and product 0.3, SiLU as integer Sigmoid and product 0.5. So who knows what a table is says so
in two attributes, of which kernels take no notice.
"""

from __future__ import annotations

from typing import cast

from onnxcompress.ops.op import Attributes, Variant

HINTS: Attributes = {"table_as": "", "table_numbers": ()}
"""Attributes of an operator with a table, and their defaults.

table_as: "" (nothing is known), or what the table is to a step or two:
    "clip": q between two bounds; table_numbers = (least, greatest).
    "linear", "sigmoid", "hardswish", "silu": quantize(f(x)) with x = (q - x_zero_point) * x_scale; table_numbers =
    (x_scale, x_zero_point, y_scale, y_zero_point).
"""

GATE_STEPS = 255.0 / 6.0
"""Of the integer form of HardSwish: steps in 1 of x + 3, whose saturation clips it to 0 ... 6."""

SIGMOID_STEPS = 255.0
"""Of the integer form of SiLU: steps in 1 of the sigmoid; an open gate is 1 exactly."""


def look_up(variant: Variant, q: str, result: str, table: str = "table") -> list[str]:
    """Nodes that make `result` = table[q], both uint8 of any shape."""
    kind = str(variant.attributes.get("table_as", ""))
    numbers = [float(number) for number in cast("tuple[float, ...]", variant.attributes.get("table_numbers", ()))]
    if kind == "clip":
        return [
            f"{q}_least = Constant <value = uint8 {{{int(numbers[0])}}}> ()",
            f"{q}_most = Constant <value = uint8 {{{int(numbers[1])}}}> ()",
            f"{result} = Clip ({q}, {q}_least, {q}_most)",
        ]
    if not kind:
        return gather(q, result, table)
    x_scale, x_zero, y_scale, y_zero = numbers
    lines = [*_parameters(f"{q}_x", x_scale, x_zero), f"{q}_real = DequantizeLinear ({q}, {q}_x_scale, {q}_x_zero)"]
    if kind == "sigmoid":
        lines.append(f"{q}_made = Sigmoid ({q}_real)")
    elif kind == "hardswish":  # x * clip(x + 3, 0, 6) / 6
        lines += [
            *_parameters(f"{q}_gate", 1 / GATE_STEPS, 0),
            *_parameters(f"{q}_unit", 1, 0),
            f"{q}_three = Constant <value = uint8 {{3}}> ()",
            f"{q}_three_real = DequantizeLinear ({q}_three, {q}_unit_scale, {q}_unit_zero)",
            f"{q}_sum = Add ({q}_real, {q}_three_real)",
            *_product(q, "sum"),
        ]
        y_scale *= 6
    elif kind == "silu":
        lines += [
            *_parameters(f"{q}_gate", 1 / SIGMOID_STEPS, 0),
            f"{q}_open = Sigmoid ({q}_real)",
            *_product(q, "open"),
        ]
    source = f"{q}_real" if kind == "linear" else f"{q}_made"
    return [
        *lines,
        *_parameters(f"{q}_y", y_scale, y_zero),
        f"{result} = QuantizeLinear ({source}, {q}_y_scale, {q}_y_zero)",
    ]


def gather(q: str, result: str, table: str) -> list[str]:
    """Nodes that make `result` = table[q] of any table of one dimension, and uint8 q of any shape."""
    return [
        f"{q}_shape = Shape ({q})",
        f"{q}_one_axis = Constant <value_ints = [-1]> ()",
        f"{q}_flat = Reshape ({q}, {q}_one_axis)",
        f"{q}_index = Cast <to = 6> ({q}_flat)",
        f"{q}_found = GatherElements <axis = 0> ({table}, {q}_index)",
        f"{result} = Reshape <allowzero = 1> ({q}_found, {q}_shape)",
    ]


def _product(q: str, gate: str) -> list[str]:
    """The real value times a gate that is quantized first: ONNX Runtime makes integer nodes of both."""
    return [
        f"{q}_gate_q = QuantizeLinear ({q}_{gate}, {q}_gate_scale, {q}_gate_zero)",
        f"{q}_gate_real = DequantizeLinear ({q}_gate_q, {q}_gate_scale, {q}_gate_zero)",
        f"{q}_made = Mul ({q}_real, {q}_gate_real)",
    ]


def _parameters(name: str, scale: float, zero_point: float) -> list[str]:
    return [
        f"{name}_scale = Constant <value = float {{{scale:.9g}}}> ()",
        f"{name}_zero = Constant <value = uint8 {{{int(zero_point)}}}> ()",
    ]
