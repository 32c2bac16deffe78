"""Keeping the bias of a quantized product apart from it."""

from __future__ import annotations

import onnx_ir as ir

STANDARD = ("", "ai.onnx")


class KeepBiasSum(ir.passes.InPlacePass):
    """Write the Add after a dequantized MatMul as Sum, which computes the same.

    Where shapes are fixed, ONNX Runtime's MatMulAddFusion makes one float Gemm of MatMul and Add, in either
    order of operands, and dequantizes the weight on every run (MiniLM, 1x128 tokens, 1 thread, version 1.31:
    81 ms against 16 with Sum). It leaves Sum alone, and the MatMul becomes an int8 kernel.

    1. The MatMul reads a constant weight through a DequantizeLinear.
    2. The Add, in the standard domain, is one of its readers. Its other operand is a constant, or the product is a
       matrix (or of unknown rank): then the fusion takes any other operand too.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in model.graph:
            if node.op_type != "MatMul" or node.domain not in STANDARD or not _is_dequantized(node.inputs[1]):
                continue
            product = node.outputs[0]
            for add in product.consumers():
                if add.op_type == "Add" and add.domain in STANDARD and _is_fused(product, add):
                    add.op_type = "Sum"
                    modified = True
        return ir.passes.PassResult(model, modified)


def _is_fused(product: ir.Value, add: ir.Node) -> bool:
    """Would ONNX Runtime make a Gemm of this?"""
    others = [value for value in add.inputs if value is not product and value is not None]
    if len(others) != 1:
        return False
    return others[0].const_value is not None or product.shape is None or len(product.shape) == 2


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return False
    return producer.inputs[0] is not None and producer.inputs[0].const_value is not None
