"""Activations that an exporter wrote out, back in one node."""

from __future__ import annotations

import math
from typing import NamedTuple

import onnx_ir as ir

from onnxcompress.passes.simplify.editor import Editor, attribute, only_reader, producer, scalar_of
from onnxcompress.passes.simplify.rules import Rule

TOLERANCE = 1e-4
"""Relative; exporters print constants to four digits or more."""


class Activation(NamedTuple):
    op_type: str
    data: ir.Value
    result: ir.Value
    attributes: dict[str, object]


def near(value: float | None, wanted: float) -> bool:
    return value is not None and math.isclose(value, wanted, rel_tol=TOLERANCE)


def operands(node: ir.Node | None) -> list[tuple[ir.Value, ir.Value]]:
    """The two inputs of a commutative node, both ways round."""
    if node is None or len(node.inputs) != 2:
        return []
    a, b = node.inputs
    return [] if a is None or b is None else [(a, b), (b, a)]


def times(value: ir.Value | None, factor: float) -> ir.Value | None:
    """x, where `value` is x * factor or x / (1 / factor)."""
    node = producer(value, "Mul", "Div")
    if node is None:
        return None
    if node.op_type == "Div":
        return node.inputs[0] if near(scalar_of(node.inputs[1]), 1 / factor) else None
    return next((a for a, b in operands(node) if near(scalar_of(b), factor)), None)


def plus(value: ir.Value | None, term: float) -> ir.Value | None:
    """x, where `value` is x + term."""
    return next((a for a, b in operands(producer(value, "Add")) if near(scalar_of(b), term)), None)


def _half_times(data: ir.Value, gate: ir.Value) -> ir.Value | None:
    """The value 0.5 * data * gate that `gate` goes into, whichever way the product is written."""
    mul = only_reader(gate)
    if mul is None or mul.op_type != "Mul":
        return None
    other = mul.inputs[0] if mul.inputs[1] is gate else mul.inputs[1]
    result = mul.outputs[0]
    if times(other, 0.5) is data:
        return result
    last = only_reader(result)
    if last is None or last.op_type not in ("Mul", "Div"):
        return None
    if other is data and times(last.outputs[0], 0.5) is result:
        return last.outputs[0]
    if near(scalar_of(other), 0.5) and last.op_type == "Mul" and data in last.inputs:
        return last.outputs[0]
    return None


def _gelu(node: ir.Node) -> Activation | None:
    """Cases: 1. 0.5 x (1 + erf(x / sqrt 2)); 2. 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), also with
    x (1 + 0.044715 x^2); Hendrycks and Gimpel, 2016."""
    gate = only_reader(node.outputs[0])
    if gate is None or plus(gate.outputs[0], 1.0) is not node.outputs[0]:
        return None
    if node.op_type == "Erf":
        data, attributes = times(node.inputs[0], math.sqrt(0.5)), {}
    else:
        data, attributes = _tanh_argument(node.inputs[0]), {"approximate": "tanh"}
    if data is None:
        return None
    result = _half_times(data, gate.outputs[0])
    return None if result is None else Activation("Gelu", data, result, dict(attributes))


def _tanh_argument(value: ir.Value | None) -> ir.Value | None:
    root = math.sqrt(2 / math.pi)
    inner = times(value, root)
    for data, cubic in operands(producer(inner, "Add")):
        cube = producer(times(cubic, 0.044715), "Pow")
        if cube is not None and cube.inputs[0] is data and near(scalar_of(cube.inputs[1]), 3.0):
            return data
    for data, factor in operands(producer(value, "Mul")):
        x = times(data, root)
        square = times(plus(factor, 1.0), 0.044715)
        if x is not None and _is_square(square, x):
            return x
    for data, factor in operands(producer(inner, "Mul")):
        if _is_square(times(plus(factor, 1.0), 0.044715), data):
            return data
    return None


def _is_square(value: ir.Value | None, data: ir.Value) -> bool:
    node = producer(value, "Pow", "Mul")
    if node is None or node.inputs[0] is not data:
        return False
    return node.inputs[1] is data if node.op_type == "Mul" else near(scalar_of(node.inputs[1]), 2.0)


def _relu6_of_shifted(value: ir.Value | None) -> ir.Value | None:
    """x, where `value` is clip(x + 3, 0, 6)."""
    clip = producer(value, "Clip")
    if clip is None or len(clip.inputs) < 3 or scalar_of(clip.inputs[1]) != 0 or scalar_of(clip.inputs[2]) != 6:
        return None
    return plus(clip.inputs[0], 3.0)


def _hard_swish(node: ir.Node) -> Activation | None:
    """Cases: 1. (x clip(x + 3, 0, 6)) / 6; 2. x HardSigmoid(x; 1/6, 1/2) (3. of `_hard_sigmoid` gives the third)."""
    result = node.outputs[0]
    product = times(result, 1 / 6)
    for data, gate in operands(producer(product, "Mul")):
        if product is not None and only_reader(product) is node and _relu6_of_shifted(gate) is data:
            return Activation("HardSwish", data, result, {})
    if node.op_type == "Mul":
        for data, gate in operands(node):
            sigmoid = producer(gate, "HardSigmoid")
            if sigmoid is not None and sigmoid.inputs[0] is data and only_reader(gate) is node and _sixth(sigmoid):
                return Activation("HardSwish", data, result, {})
    return None


def _sixth(node: ir.Node) -> bool:
    return near(attribute(node, "alpha", 0.2), 1 / 6) and near(attribute(node, "beta", 0.5), 0.5)


def _hard_sigmoid(node: ir.Node) -> Activation | None:
    """clip(x + 3, 0, 6) / 6, the clip read by it alone."""
    gate = times(node.outputs[0], 1 / 6)
    data = _relu6_of_shifted(gate)
    if gate is None or data is None or only_reader(gate) is not node:
        return None
    return Activation("HardSigmoid", data, node.outputs[0], {"alpha": 1 / 6, "beta": 0.5})


def _mish(node: ir.Node) -> Activation | None:
    """x tanh(softplus(x)); Misra, 2019."""
    for data, gate in operands(node):
        tanh = producer(gate, "Tanh")
        softplus = producer(tanh.inputs[0], "Softplus") if tanh is not None else None
        if softplus is not None and softplus.inputs[0] is data and only_reader(gate) is node:
            return Activation("Mish", data, node.outputs[0], {})
    return None


def _emit(node: ir.Node, found: Activation, editor: Editor) -> bool:
    last = found.result.producer()
    assert last is not None
    new = editor.insert(found.op_type, [found.data], found.attributes, before=last, like=found.result)
    return editor.replace(found.result, new.outputs[0])


ACTIVATIONS = (
    Rule("Gelu", ("Erf", "Tanh"), _gelu, _emit, since=20),
    Rule("HardSwish", ("Mul", "Div"), _hard_swish, _emit, since=14),
    Rule("HardSigmoid", ("Mul", "Div"), _hard_sigmoid, _emit, since=6),
    Rule("Mish", ("Mul",), _mish, _emit, since=18),
)
