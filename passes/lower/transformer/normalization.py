"""Layer normalization with the residual sum before it, the linear layer before that, and the rounding behind it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.linear import Linear, layer_inputs, linear_before
from onnxcompress.passes.lower.transformer.lowering import (
    Lowering,
    Quantized,
    Result,
    bytes_like,
    emit,
    only_quantizer,
    quantizer,
    real,
    scalar,
)
from onnxcompress.passes.lower.transformer.rows import same_shape
from onnxcompress.passes.simplify.editor import Editor, array_of, attribute, is_op, only_reader, rank_of, tensor_of

Array = np.ndarray[Any, Any]


class Rounded(NamedTuple):
    """How a normalized tensor is quantized.

    Attributes:
        q: the quantized tensor.
        factors: float32 [C] that it is multiplied by before (what smoothing left), or None.
        product: the node that does so.
    """

    q: Quantized
    factors: Array | None
    product: ir.Node | None


class Normalization(NamedTuple):
    """A LayerNormalization with what is around it.

    Attributes:
        x: what is normalized, or the first term of the sum that is.
        residual: the other term.
        linear: the linear layer whose result x is.
        total: the sum, where others read it too.
        rounded: the quantization behind it.
        is_read: whether the float result is read too.
        gamma, beta, epsilon: of the normalization.
        first: the node in front of which all inputs are known and no output is read.
        nodes: all of them, Q and DQ apart.
    """

    x: ir.Value
    residual: ir.Value | None
    linear: Linear | None
    total: ir.Value | None
    rounded: Rounded | None
    is_read: bool
    gamma: ir.Value
    beta: ir.Value | None
    epsilon: float
    result: ir.Value
    first: ir.Node
    nodes: tuple[ir.Node, ...]


class LowerNormalizations(Lowering):
    """LayerNormalization becomes QLayerNorm or, with a linear layer before it, QLinearLayerNorm.

    1. It is over the last axis, in float32, with constant vectors as scale and bias; only its first output is read.
    2. What it normalizes may be an Add or Sum of two tensors of one shape, which others may read too (`sum`).
    3. One of them may be the result of a quantized linear layer that nobody else reads.
    4. Of the QuantizeLinear that read it, also through a product with a constant vector, which then divides the
       scale (SmoothQuant), one goes in. Others read the float result.
    5. Without 2 and 4 it stays: there is nothing to gain.
    """

    anchors = ("LayerNormalization",)

    def find(self, node: ir.Node) -> Normalization | str | None:
        described = layer_norm(node)
        if isinstance(described, str):
            return described
        gamma, beta, epsilon = described
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        rounded = find_rounded(result)
        terms = sum_of(source)
        x, residual, linear, nodes, first = source, None, None, [node], node
        if terms is not None:
            total_node, x, residual = terms
            first = total_node
            nodes.insert(0, total_node)
            for term, other in ((x, residual), (residual, x)):
                layer = linear_before(term)
                if layer is not None and only_reader(term) is total_node:
                    x, residual, linear = term, other, layer
                    nodes[:0] = layer.nodes
                    break
        if residual is None and rounded is None:
            return "it neither follows a sum nor is quantized"
        if rounded is not None and rounded.product is not None:
            nodes.append(rounded.product)
        total = source if residual is not None and only_reader(source) is None else None
        return Normalization(
            x, residual, linear, total, rounded, is_read(result, rounded), gamma, beta, epsilon, result, first,
            tuple(nodes),
        )  # fmt: skip

    def rewrite(self, node: ir.Node, found: Normalization, editor: Editor) -> str:
        quantization = rounding_inputs(found.rounded, editor)
        norm = [found.gamma, found.beta, *quantization]
        if found.linear is None:
            op_type, inputs = "QLayerNorm", [found.x, found.residual, *norm]
        else:
            op_type, inputs = "QLinearLayerNorm", [*layer_inputs(found.linear, editor), found.residual, *norm]
        outputs: list[Result | None] = [
            real(found.result) if found.is_read else None,
            None if found.rounded is None else bytes_like(found.rounded.q.value),
            None,
            None,
            None if found.total is None else real(found.total),
        ]
        made = emit(
            editor, op_type, inputs, {"epsilon": found.epsilon}, outputs, before=found.first, replaces=found.nodes
        )  # fmt: skip
        take_results(made, found.result if found.is_read else None, found.rounded, editor)
        if found.total is not None:
            editor.supersede(found.total, made.outputs[4])
        words = ["q"] * (found.rounded is not None) + ["y"] * found.is_read + ["sum"] * (found.total is not None)
        return f"{op_type} giving {', '.join(words)}"


def layer_norm(node: ir.Node) -> tuple[ir.Value, ir.Value | None, float] | str:
    """Scale, bias and epsilon of a LayerNormalization; or why it has no operator of ours."""
    source = node.inputs[0]
    rank = rank_of(source)
    if source is None or node.outputs[0].dtype != ir.DataType.FLOAT:
        return "it is not in float32"
    if attribute(node, "axis", -1) not in (-1, None if rank is None else rank - 1):
        return "it is not over the last axis"
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return "its mean or deviation is read"
    vectors = list(node.inputs[1:3])
    if any(v is not None and (tensor_of(v) is None or rank_of(v) != 1) for v in vectors) or vectors[0] is None:
        return "its scale or bias is not a constant vector"
    return vectors[0], vectors[1] if len(vectors) > 1 else None, float(attribute(node, "epsilon", 1e-5))


def sum_of(value: ir.Value) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """The node and the two terms, float tensors of one shape, that a value is the sum of."""
    node = value.producer()
    if node is None or not is_op(node, "Add", "Sum") or len(node.inputs) != 2 or value.dtype != ir.DataType.FLOAT:
        return None
    a, b = node.inputs
    if a is None or b is None or a is b or any(tensor_of(v) is not None for v in (a, b)):
        return None
    return (node, a, b) if same_shape(a, b) else None


def find_rounded(value: ir.Value) -> Rounded | None:
    """The first quantization of a value; case 4 of `LowerNormalizations`."""
    for node in value.consumers():
        q = quantizer(node)
        if q is not None and node.inputs[0] is value:
            return Rounded(q, None, None)
        if not is_op(node, "Mul", "Div"):
            continue
        factors = _factors(node, value)
        q = only_quantizer(node.outputs[0])
        if factors is not None and q is not None:
            return Rounded(q, factors, node)
    return None


def _factors(node: ir.Node, value: ir.Value) -> Array | None:
    """The positive constant vector that a value is multiplied by."""
    width = value.shape[-1] if value.shape is not None and len(value.shape) else None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0] if node.op_type == "Mul" else None
    array = array_of(other)
    if array is None or array.dtype != np.float32 or not isinstance(width, int):
        return None
    if array.size not in (1, width) or (array.ndim and array.size != array.shape[-1]):
        return None
    if not np.all(np.isfinite(array)) or np.any(array <= 0):
        return None
    factors = np.broadcast_to(array.reshape(-1), (width,)).astype(np.float32)
    return factors if node.op_type == "Mul" else (1 / factors).astype(np.float32)


def is_read(value: ir.Value, rounded: Rounded | None) -> bool:
    """Whether anybody but that quantization reads a value."""
    taken = None if rounded is None else rounded.product or rounded.q.value.producer()
    return value.is_graph_output() or any(node is not taken for node in value.consumers())


def rounding_inputs(rounded: Rounded | None, editor: Editor) -> list[ir.Value | None]:
    """q_scale and q_zero_point."""
    if rounded is None:
        return [None, None]
    scale = scalar(editor, rounded.q.scale)
    if rounded.factors is not None:
        step = np.float64(tensor_of(rounded.q.scale).numpy().reshape(()))  # type: ignore[union-attr]
        scale = editor.constant((step / rounded.factors).astype(np.float32), "smoothed_scale")
    return [scale, scalar(editor, rounded.q.zero_point)]


def take_results(made: ir.Node, y: ir.Value | None, rounded: Rounded | None, editor: Editor) -> None:
    """Let the first two outputs of a node take the places of the float and of the quantized result."""
    if rounded is not None:
        editor.supersede(rounded.q.value, made.outputs[1])
    if y is not None:
        editor.supersede(y, made.outputs[0])
