"""Values that are functions of one uint8 tensor: 256 numbers say all about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxcompress.passes.quantize.arithmetic import Parameters
from onnxcompress.passes.quantize.native import BINARY, UNARY
from onnxcompress.passes.simplify.editor import STANDARD_DOMAINS, tensor_of

Array = np.ndarray[Any, Any]
IDENTITY: Array = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class Function:
    """A value as an element-wise function of one uint8 tensor.

    Attributes:
        root: the uint8 tensor.
        values: what the value is where the root holds 0, 1, ... 255; uint8 or float32 `[256]`.
        nodes: the operators on the way from the root, Q and DQ apart.
    """

    root: ir.Value
    values: Array
    nodes: tuple[ir.Node, ...] = ()


def read_parameters(node: ir.Node) -> Parameters | None:
    """Scale and zero point of a Q or DQ node that is per tensor and uint8; None for any other."""
    if len(node.inputs) < 3:
        return None
    scale, zero = tensor_of(node.inputs[1]), tensor_of(node.inputs[2])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype != ir.DataType.UINT8:
        return None
    return Parameters(float(scale.numpy().reshape(())), int(zero.numpy().reshape(())), ir.DataType.UINT8)


def quantize(values: Array, given: Parameters) -> Array:
    """uint8 of real values; not-a-number becomes 0, as in our operators."""
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.rint(values.astype(np.float32) / np.float32(given.scale)) + given.zero_point
    return np.asarray(np.nan_to_num(np.clip(steps, 0, 255), nan=0.0).astype(np.uint8))


def tabulate(graph: ir.Graph) -> dict[ir.Value, Function]:
    """Every value of the graph that is a function of one uint8 tensor, those tensors included.

    1. QuantizeLinear, uint8 and per tensor: of such a value, its rounded values; of any other, a new root.
    2. DequantizeLinear, likewise, of a root or of such a value.
    3. An element-wise operator whose operands are functions of one root, and constants of one element (for the bounds
       of Clip and the like: any constants).
    """
    functions: dict[ir.Value, Function] = {}
    numbers: dict[ir.Value, Array] = {}
    opset = graph.opset_imports.get("", 0)
    for node in graph:
        out = node.outputs[0]
        if node.op_type == "QuantizeLinear" and (given := read_parameters(node)) is not None:
            source = functions.get(_first(node))
            if source is None:
                functions[out] = Function(out, IDENTITY)
            else:
                functions[out] = Function(source.root, quantize(source.values, given), source.nodes)
        elif node.op_type == "DequantizeLinear" and (given := read_parameters(node)) is not None:
            tensor = tensor_of(node.inputs[0])
            if tensor is not None and tensor.size == 1:
                numbers[out] = given.dequantize(tensor.numpy())
            elif tensor is None:
                source = functions.setdefault(_first(node), Function(_first(node), IDENTITY))
                functions[out] = Function(source.root, given.dequantize(source.values), source.nodes)
        elif node.op_type in UNARY | BINARY and len(node.outputs) == 1:
            function = _applied(node, functions, numbers, opset)
            if function is not None:
                functions[out] = function
    return functions


def _first(node: ir.Node) -> ir.Value:
    assert node.inputs[0] is not None
    return node.inputs[0]


def _applied(
    node: ir.Node, functions: Mapping[ir.Value, Function], numbers: Mapping[ir.Value, Array], opset: int
) -> Function | None:
    """Case 3 of `tabulate`."""
    operands: list[Array | None] = []
    sources: list[Function] = []
    for value in node.inputs:
        if value is None:
            operands.append(None)
        elif value in functions:
            sources.append(functions[value])
            operands.append(functions[value].values)
        else:
            tensor = tensor_of(value)
            number = numbers.get(value) if tensor is None else tensor.numpy()
            if number is None or number.ndim > 1 or (number.size != 1 and node.op_type in BINARY):
                return None
            operands.append(number)
    if not sources or len({source.root for source in sources}) != 1:
        return None
    values = _evaluate(node, operands, opset)
    if values is None or values.shape != (256,) or values.dtype != np.float32:
        return None
    passed = dict.fromkeys(passed for source in sources for passed in source.nodes)
    return Function(sources[0].root, values, (*passed, node))


def _evaluate(node: ir.Node, operands: list[Array | None], opset: int) -> Array | None:
    """The operator on arrays, by onnx's reference implementation."""
    if (node.domain, node.op_type) == ("com.microsoft", "QuickGelu"):
        x = operands[0]
        assert x is not None
        alpha = np.float32(node.attributes.get_float("alpha", 1.702))
        with np.errstate(over="ignore"):
            return np.asarray(x / (1 + np.exp(-alpha * x)), np.float32)
    if node.domain not in STANDARD_DOMAINS:
        return None
    names = ["" if operand is None else f"i{i}" for i, operand in enumerate(operands)]
    given = {name: operand for name, operand in zip(names, operands, strict=True) if operand is not None}
    proto = onnx.helper.make_node(node.op_type, names, ["y"])
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values())
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in given.items()
    ]
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([proto], "one", infos, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            values = np.asarray(ReferenceEvaluator(model).run(None, given)[0])  # type: ignore[index]
    except Exception:  # an operator that the reference does not know: the node is no function then
        return None
    return values
