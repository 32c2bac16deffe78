"""Which nodes of a QDQ graph have an operator of ours, and with which operands: one function an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.convolution.reading import (
    Functions,
    channels,
    nearest_factors,
    read_bias,
    read_operand,
    read_result,
    read_weight,
    read_window,
    requantized,
    spatial_ones,
)
from onnxcompress.passes.lower.convolution.steps import Operand, Refused, Result, Step, as_table, composed
from onnxcompress.passes.quantize.arithmetic import Parameters
from onnxcompress.passes.simplify.editor import attribute, ints_of


def find_step(node: ir.Node, functions: Functions) -> Step:
    """The step that does a node's work.

    1. Conv, ConvTranspose: weight int8, bias constant; two dimensions, padding given in numbers. The result may be
       float.
    2. Add, Sub, Mul of two feature maps: of one shape, or the second `[N, C, 1, 1]` (it may come first but in Sub).
    3. Concat along channels.
    4. MaxPool, AveragePool, GlobalAveragePool, ReduceMean over rows and columns.
    5. Resize that repeats rows and columns whole times.
    In 2 to 5 all inputs and the output are quantized.

    Raises:
        Refused: none does; the message says why.
    """
    return FINDERS[node.op_type](node, functions)


def _conv(node: ir.Node, functions: Functions) -> Step:
    x = read_operand(node.inputs[0], functions)
    weight, scales = read_weight(node.inputs[1], 0)
    attributes: dict[str, Any] = read_window(node, weight.shape[2:])
    attributes["group"] = attribute(node, "group", 1)
    constants = {"w": np.ascontiguousarray(weight.transpose(0, 2, 3, 1)), "w_scale": scales}
    return _convolution("QConv", node, x, constants, attributes, functions)


def _conv_transpose(node: ir.Node, functions: Functions) -> Step:
    x = read_operand(node.inputs[0], functions)
    weight, scales = read_weight(node.inputs[1], 1)
    attributes: dict[str, Any] = read_window(node, weight.shape[2:])
    if attributes.pop("dilations") != (1, 1):
        raise Refused("it is dilated")
    if attribute(node, "group", 1) != 1 or attribute(node, "output_shape"):
        raise Refused("it has groups, or its padding follows from its output's shape")
    attributes["output_padding"] = attribute(node, "output_padding", (0, 0))
    constants = {"w": np.ascontiguousarray(weight.transpose(1, 2, 3, 0)), "w_scale": scales}
    return _convolution("QConvTranspose", node, x, constants, attributes, functions)


def _convolution(
    op: str, node: ir.Node, x: Operand, constants: dict[str, Any], attributes: dict[str, Any], functions: Functions
) -> Step:
    bias = read_bias(node.inputs[2] if len(node.inputs) > 2 else None)
    if bias is not None:
        constants["bias"] = bias
    result = read_result(node, functions)
    return Step(op, node, [node, *result.nodes], {"x": x}, result, constants, attributes)


def _elementwise(node: ir.Node, functions: Functions) -> Step:
    result = _quantized_result(node, functions)
    a, b = (read_operand(value, functions) for value in node.inputs)
    if spatial_ones(node.inputs[0]) and not spatial_ones(node.inputs[1]):
        if node.op_type == "Sub":
            raise Refused("it takes a feature map from one number a channel")
        a, b = b, a
        _require_shapes(node.inputs[1], node.inputs[0])
    else:
        _require_shapes(node.inputs[0], node.inputs[1])
    attributes = {"operation": node.op_type.lower()}
    return Step("QElementwise", node, [node, *result.nodes], {"a": a, "b": b}, result, {}, attributes)


def _require_shapes(a: ir.Value | None, b: ir.Value | None) -> None:
    """b has a's shape, or `[N, C, 1, 1]`; dimensions that are not known are taken to be equal, but no 1 for another."""
    assert a is not None and b is not None and a.shape is not None and b.shape is not None
    if channels(a) != channels(b):
        raise Refused("its two feature maps have other channels")
    pairs = list(zip(a.shape, b.shape, strict=True))
    for first, second in pairs[:1] if spatial_ones(b) else pairs:
        if first != second and 1 in (first, second):
            raise Refused("one feature map may be broadcast along the other")
        if isinstance(first, int) and isinstance(second, int) and first != second:
            raise Refused("its two feature maps have other shapes")


def _concat(node: ir.Node, functions: Functions) -> Step:
    result = _quantized_result(node, functions)
    if attribute(node, "axis") not in (1, -3):
        raise Refused("it does not join channels")
    operands = {}
    for i, value in enumerate(node.inputs):
        x = read_operand(value, functions)
        then = as_table(requantized(x.given, _given(result)))
        operands[f"x_{i}"] = replace(x, then=composed(then, result.clip))
    return Step("QConcat", node, [node, *result.nodes], operands, result)


def _pool(node: ir.Node, functions: Functions) -> Step:
    result = _quantized_result(node, functions)
    x = read_operand(node.inputs[0], functions)
    if node.op_type in ("GlobalAveragePool", "ReduceMean"):
        if node.op_type == "ReduceMean" and not (attribute(node, "keepdims", 1) and _axes(node) == {2, 3}):
            raise Refused("it is not over rows and columns")
        return Step("QPool", node, [node, *result.nodes], {"x": x}, result, {}, {"mode": "global_average"})
    attributes = read_window(node, attribute(node, "kernel_shape"))
    if attributes.pop("dilations") != (1, 1) or len(node.outputs) > 1:
        raise Refused("it is dilated, or gives indices too")
    attributes |= {"kernel_shape": attribute(node, "kernel_shape"), "ceil_mode": attribute(node, "ceil_mode", 0)}
    if node.op_type == "AveragePool":
        attributes |= {"mode": "average", "count_include_pad": attribute(node, "count_include_pad", 0)}
        return Step("QPool", node, [node, *result.nodes], {"x": x}, result, {}, attributes)
    moved = _in_scale(result, x.given)
    return Step("QPool", node, [node, *result.nodes], {"x": x}, moved, {}, attributes | {"mode": "max"})


def _axes(node: ir.Node) -> set[int]:
    axes = attribute(node, "axes") if len(node.inputs) < 2 else ints_of(node.inputs[1])
    return {axis % 4 for axis in axes or ()}


def _resize(node: ir.Node, functions: Functions) -> Step:
    result = _quantized_result(node, functions)
    x = read_operand(node.inputs[0], functions)
    factors = nearest_factors(node)
    if factors is None:
        raise Refused("it does not repeat rows and columns whole times")
    moved = _in_scale(result, x.given)
    return Step("QResize", node, [node, *result.nodes], {"x": x}, moved, {}, {"scales": factors})


def _in_scale(result: Result, source: Parameters) -> Result:
    """The result of an operator that keeps its input's scale: what the graph says of it is done by a table."""
    then = composed(as_table(requantized(source, _given(result))), result.clip)
    return Result(result.value, result.given, then, result.nodes)


def _quantized_result(node: ir.Node, functions: Functions) -> Result:
    result = read_result(node, functions)
    if result.given is None:
        raise Refused("its result is read in float")
    return result


def _given(result: Result) -> Parameters:
    assert result.given is not None
    return result.given


FINDERS: dict[str, Callable[[ir.Node, Functions], Step]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Add": _elementwise,
    "Sub": _elementwise,
    "Mul": _elementwise,
    "Concat": _concat,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _pool,
    "ReduceMean": _pool,
    "Resize": _resize,
}
