"""Which tensors have the same rows: all dimensions but the last, known equal without knowing them."""

from __future__ import annotations

import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.passes.simplify.editor import STANDARD_DOMAINS, rank_of, tensor_of

ELEMENTWISE = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "Relu", "Gelu", "Sigmoid", "HardSwish", "HardSigmoid", "Tanh", "Erf", "Cast",
     "Identity", "LayerNormalization", "Softmax", "Clip", "Neg", "Sqrt", "Exp")
)  # fmt: skip
"""Their first output has the shape of their first input."""

BINARY = frozenset(("Add", "Sum", "Mul", "Sub", "Div"))

OURS = frozenset(("QLinear", "QLayerNorm", "QLinearLayerNorm", "QAttention", "QTable", "WeightOnlyLinear"))


def same_rows(a: ir.Value, b: ir.Value) -> bool:
    """Whether two tensors certainly agree in rank and in all dimensions but the last.

    Cases:
      1. Their recorded shapes say so; equal names are equal dimensions.
      2. Both descend from one tensor by nodes that keep rows: element-wise ones, normalizations over the last axis,
         products with constant matrices, sums with constant vectors or with tensors of the same rows.
    """
    if rank_of(a) is not None and rank_of(a) == rank_of(b):
        first, second = list(a.shape or [])[:-1], list(b.shape or [])[:-1]
        if all(isinstance(d, int) or d.value is not None for d in (*first, *second)) and first == second:
            return True
    return root(a) is root(b)


def same_shape(a: ir.Value, b: ir.Value) -> bool:
    """`same_rows`, and the last dimension is known and equal."""
    if a.shape is None or b.shape is None or not a.shape or not b.shape:
        return False
    last = a.shape[-1]
    return isinstance(last, int) and last == b.shape[-1] and same_rows(a, b)


def root(value: ir.Value) -> ir.Value:
    """The first tensor up the graph that certainly has the rows of `value`."""
    while (source := _source(value)) is not None:
        value = source
    node = value.producer()
    # The float and the rounded result of one node have the same rows.
    return value if node is None or node.domain != DOMAIN else next(out for out in node.outputs if out.name)


def _source(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    if node is None or not node.inputs or node.inputs[0] is None:
        return None
    first = node.inputs[0]
    if node.domain == DOMAIN:
        return first if node.op_type in OURS else None
    if node.domain not in STANDARD_DOMAINS:
        return first if node.op_type in ("QuickGelu", "MatMulNBits") else None
    if node.op_type in ELEMENTWISE:
        return first if tensor_of(first) is None else None
    if node.op_type in ("MatMul", "Gemm"):
        matrix = node.inputs[1]
        plain = node.op_type == "MatMul" or not node.attributes.get_int("transA", 0)
        return first if plain and rank_of(matrix) == 2 and rank_of(first) not in (None, 1) else None
    if node.op_type in BINARY and len(node.inputs) == 2:
        return _of_two(first, node.inputs[1])
    return None


def _of_two(a: ir.Value, b: ir.Value | None) -> ir.Value | None:
    for value, other in ((a, b), (b, a)):
        if value is not None and other is not None and tensor_of(other) is not None:
            return value if (rank_of(other) or 0) <= 1 else None
    return a if b is not None and (a is b or root(a) is root(b)) else None
