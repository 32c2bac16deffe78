"""Multiply-accumulates of one node, from the shapes of its inputs and outputs.

One multiply and one add count as one. Only products with weights, or of two matrices, count: elementwise
operators, normalization, pooling and activation functions are 0, as papers count them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnxcompress.inspection.facts import Facts, Shape, Visit, product
from onnxcompress.inspection.native import is_native, native_macs


def count_macs(visit: Visit) -> int | None:
    """Multiply-accumulates of one execution; 0 for operators without any, None where shapes are unknown."""
    counter = native_macs if is_native(visit) else COUNTERS.get(visit.op)
    if counter is None and visit.node.domain not in KNOWN_DOMAINS:
        return None
    try:
        return 0 if counter is None else counter(visit)
    except (IndexError, TypeError, ValueError):  # ranks that do not fit the operator, dimensions unknown
        return None


def _shape(facts: Facts | None) -> Shape:
    if facts is None or facts.shape is None:
        raise TypeError("unknown shape")
    return facts.shape


def _times(*factors: int | str | None) -> int | None:
    return product(tuple(factors))


def _convolution(weight: int) -> Callable[[Visit], int | None]:
    def count(visit: Visit) -> int | None:
        # A weight is [out, in / group, *kernel]: each output element takes one product with each of the rest.
        return _times(visit.outputs[0].size, *_shape(visit.input(weight))[1:])

    return count


def _transposed(visit: Visit) -> int | None:
    # Each input element is multiplied with its [out / group, *kernel] weights.
    return _times(product(_shape(visit.input(0))), *_shape(visit.input(1))[1:])


def _matmul(visit: Visit) -> int | None:
    return _times(visit.outputs[0].size, _shape(visit.input(0))[-1])


def _fused_matmul(visit: Visit) -> int | None:
    inner = -2 if visit.attribute("transA", 0) else -1
    return _times(visit.outputs[0].size, _shape(visit.input(0))[inner])


def _gemm(visit: Visit) -> int | None:
    return _times(visit.outputs[0].size, _shape(visit.input(0))[0 if visit.attribute("transA", 0) else 1])


def _matmul_nbits(visit: Visit) -> int | None:
    return _times(visit.outputs[0].size, int(visit.attribute("K", 0)) or None)


def _recurrent(gates: int) -> Callable[[Visit], int | None]:
    def count(visit: Visit) -> int | None:
        # Each step and direction: gates * hidden outputs from the input and from the hidden state.
        length, batch, width = _shape(visit.input(0))
        directions = _shape(visit.input(1))[0]
        hidden = int(visit.attribute("hidden_size", 0)) or None
        if not isinstance(width, int) or hidden is None:
            return None
        return _times(length, batch, directions, gates, hidden, width + hidden)

    return count


def _einsum(visit: Visit) -> int | None:
    equation = visit.attribute("equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if "." in equation or len(terms) != 2:
        return 0 if len(terms) == 1 else None
    sizes = {
        letter: dim
        for term, facts in zip(terms, visit.inputs, strict=True)
        for letter, dim in zip(term, _shape(facts), strict=True)
    }
    return product(tuple(sizes.values()))


def _packed_attention(visit: Visit) -> int | None:
    # com.microsoft::Attention and QAttention project one input with one [in, q + k + v] weight themselves.
    batch, length, width = _shape(visit.input(0))
    inner = _shape(visit.input(1))[-1]
    values = visit.outputs[0].shape
    if values is None or not isinstance(values[-1], int) or not isinstance(inner, int):
        return None
    keys = (inner - values[-1]) // 2
    projection = _times(batch, length, width, inner)
    scores = _times(batch, length, length, keys + values[-1])
    return None if projection is None or scores is None else projection + scores


def _attention(visit: Visit) -> int | None:
    # softmax(Q K^T) V: every query meets every key, over the widths of a key and of a value.
    query, key, value = (_shape(visit.input(index)) for index in range(3))
    if not (len(query) == len(key) == len(value)) or len(query) not in (3, 4):
        return None
    heads = query[1] if len(query) == 4 else 1
    past = visit.input(4) if visit.op == "Attention" else None
    if past is not None:
        return None
    # With fewer key and value heads (grouped queries) the width that a query meets is its own.
    width, depth = query[-1], value[-1]
    if len(query) == 3 and key[-1] != query[-1] and isinstance(depth, int):
        q_heads, kv_heads = visit.attribute("q_num_heads", 1), visit.attribute("kv_num_heads", 1)
        depth = depth // kv_heads * q_heads
    if not isinstance(width, int) or not isinstance(depth, int):
        return None
    return _times(query[0], heads, query[-2], key[-2], width + depth)


def _unknown(visit: Visit) -> int | None:
    return None


KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""A node of any other domain that has no function body may compute anything."""

COUNTERS: Mapping[str, Callable[[Visit], int | None]] = {
    "Conv": _convolution(1),
    "DeformConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "com.microsoft::FusedConv": _convolution(1),
    "ConvTranspose": _transposed,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "com.microsoft::MatMulIntegerToFloat": _matmul,
    "com.microsoft::DynamicQuantizeMatMul": _matmul,
    "com.microsoft::FusedMatMul": _fused_matmul,
    "com.microsoft::TransposeMatMul": _fused_matmul,
    "com.microsoft::MatMulNBits": _matmul_nbits,
    "Gemm": _gemm,
    "com.microsoft::FusedGemm": _gemm,
    "com.microsoft::QGemm": _gemm,
    "LSTM": _recurrent(4),
    "GRU": _recurrent(3),
    "RNN": _recurrent(1),
    "com.microsoft::DynamicQuantizeLSTM": _recurrent(4),
    "Einsum": _einsum,
    "Attention": _attention,
    "com.microsoft::MultiHeadAttention": _attention,
    "com.microsoft::Attention": _packed_attention,
    "com.microsoft::QAttention": _packed_attention,
    **{
        f"com.microsoft::{name}": _unknown
        for name in ("GroupQueryAttention", "SparseAttention", "PagedAttention", "MoE", "QMoE", "MatMulBnb4")
    },
}
"""The compute operators. Those missing here cost nothing that is counted."""
