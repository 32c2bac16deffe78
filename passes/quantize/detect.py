"""Is a model quantized already?"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

OPERATORS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv",
    "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm", "QAttention", "MatMulNBits", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QMoE", "MatMulBnb4", "GatherBlockQuantized",
}  # fmt: skip


def quantized_operators(model: ir.Model) -> Counter[str]:
    """The operators of quantization in a model, subgraphs and functions included, by count; empty: none."""
    found = Counter(node.op_type for node in model.graph.all_nodes() if node.op_type in OPERATORS)
    for function in model.functions.values():
        found.update(node.op_type for node in function.all_nodes() if node.op_type in OPERATORS)
    return found
