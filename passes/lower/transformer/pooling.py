"""Sentence embeddings: the mean over the tokens that a mask keeps, and its length made 1, as MeanPool."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.lowering import Lowering, emit, real
from onnxcompress.passes.lower.transformer.moves import assignments, evaluate, leaves, trials
from onnxcompress.passes.simplify.editor import (
    Editor,
    attribute,
    ints_of,
    is_op,
    only_reader,
    producer,
    rank_of,
    scalar_of,
    tensor_of,
)

MASK_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.BOOL)


class Pool(NamedTuple):
    """A masked mean.

    Attributes:
        x: float32 [B, S, C].
        mask: [B, S].
        minimum_count: least number of tokens that the sum is divided by.
        norm_epsilon: least length that the mean is divided by; None: it is not.
        result: what comes of it.
        nodes: the product with the mask, the sums, the divisions.
    """

    x: ir.Value
    mask: ir.Value
    minimum_count: float
    norm_epsilon: float | None
    result: ir.Value
    nodes: tuple[ir.Node, ...]


class LowerPooling(Lowering):
    """A masked mean over the tokens, and the division by its length, becomes MeanPool.

    1. sum(x * m) / max(sum(m), least), both sums over the second axis, x [B, S, C]; m is made of one tensor [B, S],
       whose numbers it repeats for each channel.
    2. Then, where nobody else reads the mean, mean / max(L2 norm over the last axis, epsilon).
    """

    anchors = ("Div",)

    def find(self, node: ir.Node) -> Pool | None:
        total, count = producer(node.inputs[0], "ReduceSum"), _at_least(node.inputs[1])
        product = producer(total.inputs[0], "Mul") if total is not None and _over(total, 1) else None
        if total is None or product is None or count is None:
            return None
        counted, least = count
        sum_of_mask = producer(counted, "ReduceSum")
        if sum_of_mask is None or not _over(sum_of_mask, 1) or only_reader(product.outputs[0]) is not total:
            return None
        for x, wide in (tuple(product.inputs), tuple(product.inputs)[::-1]):
            mask = _mask(x, wide)
            if mask is None or _mask(x, sum_of_mask.inputs[0]) is not mask:
                continue
            assert x is not None
            nodes = (product, total, sum_of_mask, node)
            length = _length(node.outputs[0])
            if length is None:
                return Pool(x, mask, least, None, node.outputs[0], nodes)
            return Pool(x, mask, least, length[0], length[1].outputs[0], (*nodes, length[1]))
        return None

    def rewrite(self, node: ir.Node, found: Pool, editor: Editor) -> str:
        attributes: dict[str, float | int] = {"minimum_count": found.minimum_count, "normalize": 0}
        if found.norm_epsilon is not None:
            attributes |= {"normalize": 1, "norm_epsilon": found.norm_epsilon}
        last = found.result.producer()
        assert last is not None
        made = emit(
            editor, "MeanPool", [found.x, found.mask], attributes, [real(found.result)], before=last,
            replaces=found.nodes,
        )  # fmt: skip
        editor.supersede(found.result, made.outputs[0])
        return "MeanPool" + (" with unit length" if found.norm_epsilon is not None else "")


def _over(node: ir.Node, axis: int) -> bool:
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    return axes == (axis,) and rank_of(node.inputs[0]) == 3 and not attribute(node, "keepdims", 1)


def _at_least(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """What is bounded from below by a positive number, and that number; the sizes of dimensions are repeated freely."""
    if (widened := producer(value, "Expand")) is not None:
        value = widened.inputs[0]
    node = producer(value, "Clip", "Max")
    if node is None or (node.op_type == "Clip" and len(node.inputs) > 2 and node.inputs[2] is not None):
        return None
    for source, bound in (tuple(node.inputs[:2]), tuple(node.inputs[:2])[::-1]):
        least = scalar_of(bound)
        if least is not None and source is not None and tensor_of(source) is None and least > 0:
            return source, least
        if node.op_type == "Clip":
            break
    return None


def _length(mean: ir.Value) -> tuple[float, ir.Node] | None:
    """The division of a value by its own length, and the least length; case 2."""
    if mean.is_graph_output() or len(mean.consumers()) != 2:
        return None
    division = next((node for node in mean.consumers() if is_op(node, "Div") and node.inputs[0] is mean), None)
    bounded = _at_least(division.inputs[1]) if division is not None else None
    norm = producer(bounded[0], "ReduceL2") if bounded is not None else None
    if division is None or bounded is None or norm is None or norm.inputs[0] is not mean:
        return None
    axes = ints_of(norm.inputs[1]) if len(norm.inputs) > 1 else attribute(norm, "axes")
    if axes not in ((-1,), (1,)) or not attribute(norm, "keepdims", 1):
        return None
    return bounded[1], division


def _mask(x: ir.Value | None, wide: ir.Value | None) -> ir.Value | None:
    """The tensor [B, S] whose numbers `wide` repeats for each channel of x."""
    if x is None or wide is None or rank_of(x) != 3 or x.dtype != ir.DataType.FLOAT:
        return None
    sources = leaves(wide)
    if len(sources) != 1 or rank_of(sources[0]) != 2 or sources[0].dtype not in MASK_TYPES:
        return None
    source, random = sources[0], np.random.default_rng(0)
    assert source.dtype is not None
    for sizes, names in trials(source):
        mask = random.integers(0, 2, sizes)
        given = {source: mask.astype(source.dtype.numpy())}
        results = (evaluate(wide, given, guess) for guess in assignments([wide], sizes, names))
        found = next((r for r in results if r is not None), None)
        if found is None or found.ndim != 3 or not np.all(found == mask[:, :, None]):
            return None
    return source
