"""Arithmetic on elements."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, number, plain


def divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a / b; integers are cut toward zero."""
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def power(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a to the power of b, in the type of a."""
    if b.numel() == 1 and not b.requires_grad and b.device.type == "cpu":
        return torch.pow(a, b.item()).to(a.dtype)  # squares and cubes have kernels of their own
    return torch.pow(a, b).to(a.dtype)


def modulo(call: Call) -> Function:
    function: Function = torch.fmod if call.get("fmod", 0) else torch.remainder
    return function


def folded(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    """Of two inputs, over any number of them."""
    return plain(lambda *inputs: reduce(function, inputs), elementwise=True)


def mean(*inputs: torch.Tensor) -> torch.Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def clip(call: Call) -> Function:
    if call.version < 11:
        low, high = call.get("min"), call.get("max")
        return lambda x: x if low is None and high is None else torch.clamp(x, low, high)

    def clamp(x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
        if any(bound is not None and bound.requires_grad for bound in (low, high)):
            x = x if low is None else torch.maximum(x, low)
            return x if high is None else torch.minimum(x, high)
        low, high = number(low), number(high)
        return x if low is None and high is None else torch.clamp(x, low, high)

    return clamp


def cumulated_sum(call: Call) -> Function:
    exclusive, reverse = call.get("exclusive", 0), call.get("reverse", 0)

    def sums(x: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
        along = int(number(axis))
        y = x.flip(along) if reverse else x
        total = torch.cumsum(y, along, dtype=x.dtype)
        if exclusive:
            total = total - y
        return total.flip(along) if reverse else total

    return sums


def shift(call: Call) -> Function:
    left: Function = torch.bitwise_left_shift
    right: Function = torch.bitwise_right_shift
    return left if call.get("direction") == "LEFT" else right


def _elementwise(function: Function) -> Operator:
    return plain(function, elementwise=True)


ARITHMETIC: Table = {
    "Add": _elementwise(torch.add),
    "Sub": _elementwise(torch.sub),
    "Mul": _elementwise(torch.mul),
    "Div": _elementwise(divide),
    "Pow": _elementwise(power),
    "Mod": Operator(modulo),
    "Max": folded(torch.maximum),
    "Min": folded(torch.minimum),
    "Sum": folded(torch.add),
    "Mean": plain(mean, elementwise=True),
    "Neg": plain(torch.neg),
    "Abs": plain(torch.abs),
    "Sign": plain(torch.sign),
    "Sqrt": plain(torch.sqrt),
    "Reciprocal": plain(torch.reciprocal),
    "Exp": plain(torch.exp),
    "Log": plain(torch.log),
    "Erf": plain(torch.erf),
    "Floor": plain(torch.floor),
    "Ceil": plain(torch.ceil),
    "Round": plain(torch.round),
    "Sin": plain(torch.sin),
    "Cos": plain(torch.cos),
    "Tan": plain(torch.tan),
    "Asin": plain(torch.asin),
    "Acos": plain(torch.acos),
    "Atan": plain(torch.atan),
    "Sinh": plain(torch.sinh),
    "Cosh": plain(torch.cosh),
    "Asinh": plain(torch.asinh),
    "Acosh": plain(torch.acosh),
    "Atanh": plain(torch.atanh),
    "Clip": Operator(clip, numbers=(1, 2)),
    "CumSum": Operator(cumulated_sum, numbers=(1,)),
    "BitShift": Operator(shift),
    "BitwiseAnd": plain(torch.bitwise_and),
    "BitwiseOr": plain(torch.bitwise_or),
    "BitwiseXor": plain(torch.bitwise_xor),
    "BitwiseNot": plain(torch.bitwise_not),
}
