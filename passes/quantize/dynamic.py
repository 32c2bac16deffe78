"""Dynamic quantization: ranges taken from each input as it comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize import arithmetic, roles
from onnxcompress.passes.quantize.roles import Decision

Array = np.ndarray[Any, Any]


class QuantizeDynamic(ir.passes.InPlacePass):
    """MatMul and Gemm in int8, with the scale of their input taken on every run.

    Each becomes DynamicQuantizeLinear (one for all readers of a tensor), MatMulInteger, Cast, Mul by both
    scales and Add of the bias: standard operators, which ONNX Runtime fuses into one kernel.

    1. MatMul with a constant float32 matrix as its second factor.
    2. Gemm with a constant weight, no transA, alpha = beta = 1; a transposed weight is stored untransposed.
    3. Convolutions stay float: ONNX Runtime's ConvInteger is five to eight times slower than its float one.

    Attributes:
        decisions: what became of every node that could have been quantized, and why.
    """

    def __init__(self, exclude: frozenset[str] = frozenset(), *, limit: int = 127) -> None:
        super().__init__()
        self.exclude = exclude
        self.limit = limit
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.decisions = []
        graph = model.graph
        quantized_inputs: dict[str, list[ir.Value]] = {}
        for node in list(graph):
            if node.domain not in roles.STANDARD or node.op_type not in (*roles.COMPUTE, *roles.NO_KERNEL):
                continue
            reason = self._refusal(node)
            name = node.name or node.outputs[0].name or ""
            self.decisions.append(Decision(name, node.op_type, reason is None, reason or "int8, dynamic"))
            if reason is None:
                _rewrite(graph, node, quantized_inputs, self.limit)
        done = any(decision.quantized for decision in self.decisions)
        return ir.passes.PassResult(model, modified=done)

    def _refusal(self, node: ir.Node) -> str | None:
        if node.op_type == "Conv":
            return "dynamic int8 convolution is slower than float in ONNX Runtime"
        reason = roles.refusal(node, activation_matmuls=False, minimum_weights=0)
        if reason is None and (node.name or node.outputs[0].name) in self.exclude:
            return "excluded"
        return reason


def _rewrite(graph: ir.Graph, node: ir.Node, quantized_inputs: dict[str, list[ir.Value]], limit: int) -> None:
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None and x.name is not None and weight is not None and weight.const_value is not None
    array = weight.const_value.numpy()
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1:
        array = np.ascontiguousarray(array.T)
    name = node.name or str(node.outputs[0].name)
    scales = arithmetic.weight_scales(array, 1, limit)
    stored = _constant(graph, f"{name}/weight_quantized", arithmetic.quantize_weight(array, scales, 1, limit))
    scale = _constant(graph, f"{name}/weight_scale", scales)
    zero = _constant(graph, f"{name}/weight_zero_point", np.zeros(scales.shape, np.int8))
    made: list[ir.Node] = []
    if x.name not in quantized_inputs:
        quantize = _node("DynamicQuantizeLinear", [x], f"{x.name}/quantize", outputs=3)
        for value, label in zip(quantize.outputs, ("quantized", "scale", "zero_point"), strict=True):
            value.name = f"{x.name}/dynamic_{label}"
        made.append(quantize)
        quantized_inputs[x.name] = list(quantize.outputs)
    integers, x_scale, x_zero = quantized_inputs[x.name]
    made.append(_node("MatMulInteger", [integers, stored, x_zero, zero], f"{name}/integer"))
    made.append(_node("Cast", [made[-1].outputs[0]], f"{name}/cast", {"to": int(ir.DataType.FLOAT)}))
    both = _node("Mul", [x_scale, scale], f"{name}/scales")
    made.append(both)
    made.append(_node("Mul", [made[-2].outputs[0], both.outputs[0]], f"{name}/rescale"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        made.append(_node("Add", [made[-1].outputs[0], bias], f"{name}/bias"))
    graph.insert_before(node, made)
    old, new = node.outputs[0], made[-1].outputs[0]
    new.type, new.shape, new.name = old.type, old.shape, old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if not weight.uses() and not weight.is_graph_output():
        del graph.initializers[str(weight.name)]


def _node(
    op: str, inputs: list[ir.Value], name: str, attributes: dict[str, int] | None = None, outputs: int = 1
) -> ir.Node:
    node = ir.node(op, inputs, attributes or {}, name=name, num_outputs=outputs)
    node.outputs[0].name = f"{name}/output"
    return node


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(array, name=name),
    )  # fmt: skip
    graph.register_initializer(value)
    return value
