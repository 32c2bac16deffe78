"""Is a model quantized already?"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from onnxcompress.ops import DOMAIN, OPS

OPERATORS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm",
    "QAttention", "MatMulNBits", "MatMulBnb4", "MatMulIntegerToFloat", "QMoE", "QOrderedMatMul",
    "GatherBlockQuantized",
}  # fmt: skip
PREFIXES = ("QLinear", "DynamicQuantize")
DOMAINS = {"", "ai.onnx", "com.microsoft"}


def quantized_operators(model: ir.Model) -> Counter[str]:
    """The operators of quantization in a model, subgraphs and functions included, by count; empty: none.

    Of an operator of this project the node counts, not its function body.
    """
    nodes = list(model.graph.all_nodes())
    for function in model.functions.values():
        if function.domain != DOMAIN:
            nodes.extend(function.all_nodes())
    return Counter(node.op_type for node in nodes if _is_quantized(node))


def _is_quantized(node: ir.Node) -> bool:
    if node.domain == DOMAIN:
        return node.op_type in OPS
    return node.domain in DOMAINS and (node.op_type in OPERATORS or node.op_type.startswith(PREFIXES))
