"""The core of attention as exporters write it: two products with a Softmax between them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import onnx_ir as ir

from onnxcompress.passes.lower.transformer.moves import Path, path_to
from onnxcompress.passes.simplify.editor import attribute, is_op, only_reader, producer, rank_of, scalar_of, tensor_of

FAR = -1000.0
"""What masks keys, added to their scores or in their place, is at most this."""

Form = Literal["added", "kept", "dropped"]


class Core(NamedTuple):
    """softmax(q * k^T * scale + mask) * v.

    Attributes:
        q, k, v: how the factors come from other tensors.
        factors: the factors themselves; that of the keys is transposed.
        scale: what scores are multiplied by between the products.
        mask: what is added to them, or the condition that keeps or drops them.
        form: which of the three.
        nodes: both products and what is between.
        result: the second product.
    """

    q: Path
    k: Path
    v: Path
    factors: tuple[ir.Value, ir.Value, ir.Value]
    scale: float
    mask: ir.Value | None
    form: Form
    nodes: tuple[ir.Node, ...]
    result: ir.Value

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.q, self.k, self.v


class _Scores(NamedTuple):
    product: ir.Node
    scale: float
    mask: ir.Value | None
    form: Form
    nodes: tuple[ir.Node, ...]


def find_core(node: ir.Node) -> Core | str | None:
    """The core around a Softmax; None where there is none.

    Cases:
      1. Softmax over the last axis; or, as converted from old opsets, of its input flattened to two dimensions, the
         shape put back behind it.
      2. Before it a product of two activations; between them a product with a number, then a mask: an addend, or a
         Where that puts -1000 or less in the place of scores.
      3. Behind it a product with it as first factor; between them a Where that replaces not-a-number by 0 (such rows
         have no key at all; QAttention lets them attend to all keys alike).
    """
    source, result, nodes = _softmax(node)
    if source is None or result is None:
        return None
    second, guard = _second_product(result)
    if second is None:
        return None
    scores = _scores(source)
    if scores is None or isinstance(scores, str):
        return scores
    if rank_of(second.outputs[0]) not in (3, 4):
        return "its products are not of rank 3 or 4"
    q, k = scores.product.inputs
    v = second.inputs[1]
    if q is None or k is None or v is None:
        return None
    through = frozenset[str]()
    inner = (scores.product, *scores.nodes, *nodes, *guard, second)
    return Core(
        path_to(q, through), path_to(k, through), path_to(v, through), (q, k, v), scores.scale, scores.mask,
        scores.form, inner, second.outputs[0],
    )  # fmt: skip


def _softmax(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None, tuple[ir.Node, ...]]:
    """Input and result of a Softmax over the last axis, and its nodes; case 1."""
    source, result = node.inputs[0], node.outputs[0]
    rank = rank_of(source)
    if attribute(node, "axis", -1) not in (-1, None if rank is None else rank - 1):
        return None, None, ()
    flatten, back = producer(source, "Flatten", "Reshape"), only_reader(result)
    if flatten is None or back is None or not is_op(back, "Reshape") or flatten.inputs[0] is None:
        return source, result, (node,)
    before, after = flatten.inputs[0].shape, back.outputs[0].shape
    if before is None or after is None or list(before) != list(after) or source is None or source.shape is None:
        return None, None, ()
    if before[-1] != source.shape[-1]:
        return None, None, ()
    return flatten.inputs[0], back.outputs[0], (flatten, node, back)


def _second_product(value: ir.Value) -> tuple[ir.Node | None, tuple[ir.Node, ...]]:
    """The product with the values, and the nodes of a guard against not-a-number before it; case 3."""
    readers = value.consumers()
    test = next((node for node in readers if is_op(node, "IsNaN")), None)
    if test is not None and len(readers) == 2:
        guard = only_reader(test.outputs[0])
        if guard is None or not is_op(guard, "Where") or guard not in readers or guard.inputs[2] is not value:
            return None, ()
        if scalar_of(guard.inputs[1]) != 0:
            return None, ()
        product = _product(only_reader(guard.outputs[0]), guard.outputs[0])
        return product, (test, guard)
    return _product(only_reader(value), value), ()


def _product(node: ir.Node | None, first: ir.Value) -> ir.Node | None:
    if node is None or not is_op(node, "MatMul") or node.inputs[0] is not first:
        return None
    return node if tensor_of(node.inputs[1]) is None else None


def _scores(value: ir.Value | None) -> _Scores | str | None:
    """Up from the Softmax to the product of queries and keys; case 2."""
    scale, mask = 1.0, None
    form: Form = "added"
    nodes: list[ir.Node] = []
    while value is not None and (node := value.producer()) is not None:
        if is_op(node, "MatMul"):
            if any(v is None or tensor_of(v) is not None for v in node.inputs):
                return None
            return _Scores(node, scale, mask, form, tuple(reversed(nodes)))
        step = path_to(value)
        if step.nodes and step.nodes[-1] is node and is_op(node, "Mul", "Div"):
            inner = next(v for v in node.inputs if v is not None and tensor_of(v) is None)
            scale *= _factor(node)
            value = inner
        elif is_op(node, "Add") and (masked := _unmasked(node)) is not None:
            if mask is not None or scale != 1.0:
                return "its mask is scaled, or there are two of them"
            value, mask = masked
        elif is_op(node, "Where") and (chosen := _chosen(node)) is not None:
            if mask is not None or scale != 1.0:
                return "its mask is scaled, or there are two of them"
            value, mask, form = chosen
        else:
            return None
        nodes.append(node)
    return None


def _factor(node: ir.Node) -> float:
    numbers = [scalar_of(v) for v in node.inputs]
    number = next(n for n in numbers if n is not None)
    return number if node.op_type == "Mul" else 1 / number


def _unmasked(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The scores and the mask of a sum: the scores are what leads to a product of two activations."""
    for value, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        if value is None or other is None:
            continue
        source = path_to(value, frozenset()).source
        product = producer(source, "MatMul")
        if product is not None and all(v is not None and tensor_of(v) is None for v in product.inputs):
            return value, other
    return None


def _chosen(node: ir.Node) -> tuple[ir.Value, ir.Value, Form] | None:
    """The scores, and the condition that keeps or drops them, of a Where between them and a number far below."""
    condition, first, second = node.inputs
    if condition is None or first is None or second is None:
        return None
    if (scalar_of(second) or 0.0) <= FAR:
        return first, condition, "kept"
    return (second, condition, "dropped") if (scalar_of(first) or 0.0) <= FAR else None
