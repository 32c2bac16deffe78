"""Quantized linear layers as one kernel of ONNX Runtime, bias included."""

from __future__ import annotations

import onnx_ir as ir

CONTRIB = "com.microsoft"


class FuseIntegerLinear(ir.passes.InPlacePass):
    """DequantizeLinear x 2, MatMul, Add(bias) becomes com.microsoft.MatMulIntegerToFloat.

    Left as QDQ, ONNX Runtime keeps the bias apart, or, where shapes are static, makes a float Gemm of MatMul
    and Add that dequantizes its weight on every run.

    1. Both factors of the MatMul come from DequantizeLinear: 8-bit, the first per tensor, the second a
       constant, per tensor or per column.
    2. The Add's other operand is a constant vector of the MatMul's columns, and the Add is the only reader of
       the product. Without such an Add the node gets no bias.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        modified = False
        for node in list(graph):
            if node.op_type == "MatMul" and node.domain in ("", "ai.onnx"):
                sources = [value.producer() for value in node.inputs if value is not None]
                if _is_activation(sources[0]) and _is_weight(sources[1]):
                    assert sources[0] is not None and sources[1] is not None
                    _fuse(graph, node, sources[0], sources[1])
                    modified = True
        if modified:
            graph.opset_imports.setdefault(CONTRIB, 1)
            for dequantize in [n for n in graph if n.op_type == "DequantizeLinear"]:
                if not dequantize.outputs[0].uses() and not dequantize.outputs[0].is_graph_output():
                    graph.remove(dequantize, safe=True)
        return ir.passes.PassResult(model, modified)


def _is_activation(node: ir.Node | None) -> bool:
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) != 3:
        return False
    integers, scale, zero = node.inputs
    if integers is None or scale is None or zero is None or scale.const_value is None or scale.const_value.size != 1:
        return False
    return zero.dtype in (ir.DataType.UINT8, ir.DataType.INT8)


def _is_weight(node: ir.Node | None) -> bool:
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) != 3:
        return False
    integers, scale = node.inputs[0], node.inputs[1]
    if integers is None or integers.const_value is None or scale is None or scale.const_value is None:
        return False
    if integers.dtype not in (ir.DataType.INT8, ir.DataType.UINT8) or len(integers.const_value.shape) != 2:
        return False
    per_column = node.attributes.get_int("axis", 1) in (1, -1) and not node.attributes.get_int("block_size", 0)
    return scale.const_value.size == 1 or per_column


def _fuse(graph: ir.Graph, node: ir.Node, activation: ir.Node, weight: ir.Node) -> None:
    inputs = [activation.inputs[0], weight.inputs[0], activation.inputs[1], weight.inputs[1]]
    inputs += [activation.inputs[2], weight.inputs[2]]
    last = node
    bias_add = _bias_add(node, columns=int(weight.inputs[0].shape[1]))  # type: ignore[union-attr, index, arg-type]
    if bias_add is not None:
        last, bias = bias_add
        inputs.append(bias)
    fused = ir.node("MatMulIntegerToFloat", inputs, domain=CONTRIB, name=node.name)
    graph.insert_before(last, fused)
    old, new = last.outputs[0], fused.outputs[0]
    new.type, new.shape, new.name = old.type, old.shape, old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove([last] if last is node else [last, node], safe=True)


def _bias_add(node: ir.Node, columns: int) -> tuple[ir.Node, ir.Value] | None:
    product = node.outputs[0]
    users = product.consumers()
    if len(users) != 1 or product.is_graph_output() or users[0].op_type not in ("Add", "Sum"):
        return None
    others = [value for value in users[0].inputs if value is not product]
    if len(others) != 1 or others[0] is None or others[0].const_value is None or others[0].is_graph_input():
        return None
    bias = others[0]
    if list(bias.const_value.shape) != [columns] or bias.dtype != ir.DataType.FLOAT:  # type: ignore[union-attr]
        return None
    return users[0], bias
