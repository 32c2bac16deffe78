"""From a node to what the builder of its operator sees."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxcompress.errors import ModelError
from onnxcompress.torch.constants import tensor_of
from onnxcompress.torch.standard import Call, Function, operator_of
from onnxcompress.torch.standard.native import output_kind
from onnxcompress.torch.types import Types, to_torch

ZERO_POINTS = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7}
"""Operators that give integers of the type of a zero point, and which input that is."""


def function_of(node: ir.Node, imports: dict[str, int], types: Types) -> Function:
    """The torch function of a node.

    Raises:
        ModelError: an operator, or a way to use it, that there is no function for; names it and the node.
    """
    call = call_of(node, imports, types)
    operator = operator_of(node)
    if operator is None:
        raise call.refusal("there is no torch form of this operator; leave it out with `extract`, or replace it")
    return operator.build(call)


def call_of(node: ir.Node, imports: dict[str, int], types: Types) -> Call:
    """What a builder sees of a node."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    inputs = list(node.inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()
    call = Call(
        op=node.op_type,
        domain=domain,
        name=label(node),
        version=node.version if node.version is not None else imports.get(domain, 1),
        attributes={},
        given=tuple(value is not None for value in inputs),
        kinds=tuple(None if value is None else kind_of(value) for value in inputs),
        wanted=tuple(bool(value.name) for value in node.outputs),
        types=types,
    )
    attributes = {name: _value(attribute, call) for name, attribute in node.attributes.items()}
    return Call(**{**vars(call), "attributes": attributes})


def label(node: ir.Node) -> str:
    """The node's name, or that of its first output."""
    return node.name or next((value.name for value in node.outputs if value.name), "") or "?"


def kind_of(value: ir.Value) -> ir.DataType | None:
    """The element type of a value, as far as it is known without inference."""
    tensor = tensor_of(value)
    if tensor is not None:
        return ir.DataType(tensor.dtype)
    if value.dtype is not None:
        return value.dtype
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "DynamicQuantizeLinear" and value is not node.outputs[1]:
        return ir.DataType.UINT8
    if node.op_type in ZERO_POINTS:
        asked = node.attributes.get_int("output_dtype", 0)
        inputs, place = node.inputs, ZERO_POINTS[node.op_type]
        zero = inputs[place] if len(inputs) > place else None
        return kind_of(zero) if zero is not None else ir.DataType(asked or ir.DataType.UINT8)
    return output_kind(node, node.outputs.index(value))


def _value(attribute: ir.Attr, call: Call) -> Any:
    if attribute.is_ref():
        raise call.refusal(f"its attribute {attribute.name!r} refers to a function's")
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        try:
            return to_torch(tensor)
        except KeyError:
            raise call.refusal(f"torch has no tensors of type {ir.DataType(tensor.dtype).name}") from None
    value = attribute.value
    return list(value) if isinstance(value, (list, tuple)) else value


def imports_of(model: ir.Model) -> dict[str, int]:
    """Versions by domain; the standard one is ''.

    Raises:
        ModelError: the standard one is older than 7, where operators broadcast in another way.
    """
    imports = {"" if domain == "ai.onnx" else domain: version for domain, version in model.opset_imports.items()}
    if imports.get("", 7) < 7:
        raise ModelError(f"opset {imports['']} is too old for torch; `onnxcompress optimize` brings the model to 21")
    return imports
