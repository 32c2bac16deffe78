"""Linear layers whose weights alone are quantized, as WeightOnlyLinear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.linear import activation_after, activation_name, residual_sum
from onnxcompress.passes.lower.transformer.lowering import Lowering, Result, emit, replaced_names
from onnxcompress.passes.lower.weight_only_storage import (
    Weights,
    bias_vector,
    dequantizer,
    interleaved,
    read_dequantized,
    read_nbits,
    written,
)
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.quantize.weight_only import LEAST_OPSET
from onnxcompress.passes.simplify.editor import Editor, attribute, is_op, only_reader, producer, rank_of, tensor_of

Array = np.ndarray[Any, Any]

REAL = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


class Layer(NamedTuple):
    """A linear layer with weights of 4 or 8 bits, and what is done in one go with it.

    Attributes:
        x: its input, float32 or float16.
        weights: of gate and up in turn, where it is gated.
        bias: float32 [N], or None.
        activation: of WeightOnlyLinear; "" for none.
        residual: what is added after it.
        result: the last value.
        nodes: those that it stands for, in order.
        gated: two layers whose results are multiplied.
    """

    x: ir.Value
    weights: Weights
    bias: Array | None
    activation: str
    residual: ir.Value | None
    result: ir.Value
    nodes: tuple[ir.Node, ...]
    gated: bool = False


def find_layer(node: ir.Node) -> Layer | str | None:
    """The layer that a MatMul, Gemm or MatMulNBits is, with its bias and activation; a reason why not; None: its
    weights are in float, or its activations are quantized too.

    Cases:
      1. MatMul, or Gemm with alpha = beta = 1, no transA and a constant vector for a bias: its second factor comes from
         a DequantizeLinear of constants (see read_dequantized), directly or by a Transpose; nobody but products that
         have it as second factor reads it.
      2. com.microsoft MatMulNBits (see read_nbits).
      3. Then, where nobody else reads the product and it has no bias yet, an Add or Sum of a constant vector.
      4. Then an activation that is exactly one of WeightOnlyLinear's.
    """
    weights = _nbits(node) if node.op_type == "MatMulNBits" else _standard(node)
    if weights is None or isinstance(weights, str):
        return weights
    x = node.inputs[0]
    assert x is not None
    if x.dtype not in REAL:
        return "its input is not known to be float32 or float16"
    result, bias, nodes = node.outputs[0], None, [node]
    given = {"Gemm": 2, "MatMulNBits": 5}.get(node.op_type, len(node.inputs))
    if given < len(node.inputs) and node.inputs[given] is not None:
        bias = bias_vector(node.inputs[given], weights.shape[0])
        if bias is None:
            return "its bias is not a constant vector"
    elif (added := _bias_sum(result, weights.shape[0])) is not None:
        bias, last = added
        result = last.outputs[0]
        nodes.append(last)
    activation, result, more = activation_after(result)
    return Layer(x, weights, bias, activation, None, result, (*nodes, *more))


def _nbits(node: ir.Node) -> Weights | str | None:
    return read_nbits(node) if node.domain == "com.microsoft" else None


def _standard(node: ir.Node) -> Weights | str | None:
    found = dequantizer(node.inputs[1])
    if found is None or not is_op(node, "MatMul", "Gemm"):
        return None
    source = producer(node.inputs[0], "DequantizeLinear")
    if source is not None and tensor_of(source.inputs[0]) is None:
        return None  # a quantized layer
    if tensor_of(node.inputs[0]) is not None:
        return "its input is a constant"
    dequantize, transposed, values = found
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return "Gemm with transA"
    if node.op_type == "Gemm" and any(attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return "Gemm with alpha or beta other than 1"
    for value in values:
        for reader, index in value.uses():
            if not (is_op(reader, "MatMul", "Gemm") and index == 1) and reader.outputs[0] not in values:
                return f"its weight is also read by {reader.name or reader.op_type}"
        if value.is_graph_output():
            return "its weight is an output of the model"
    own = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
    return read_dequantized(dequantize, 0 if own != transposed else 1)


def _bias_sum(product: ir.Value, size: int) -> tuple[Array, ir.Node] | None:
    last = only_reader(product)
    if last is None or not is_op(last, "Add", "Sum") or len(last.inputs) != 2:
        return None
    other = last.inputs[1] if last.inputs[0] is product else last.inputs[0]
    bias = bias_vector(other, size)
    if bias is None or (rank_of(other) or 0) > max(rank_of(product) or 1, 1):  # it would give the result more axes
        return None
    return bias, last


def _with_residual(layer: Layer) -> Layer:
    added = residual_sum(layer.result) if layer.x.dtype == ir.DataType.FLOAT else None
    if added is None:
        return layer
    residual, last = added
    return layer._replace(residual=residual, result=last.outputs[0], nodes=(*layer.nodes, last))


def layer_ending_at(value: ir.Value | None) -> Layer | None:
    """The layer, activation included, whose result a value is."""
    for node in _sources(value):
        layer = find_layer(node)
        if isinstance(layer, Layer) and layer.result is value:
            return layer
    return None


def _sources(value: ir.Value | None, depth: int = 3) -> Iterator[ir.Node]:
    """Products that a value may be the result of: through activations and sums."""
    node = None if value is None else value.producer()
    if node is None or depth == 0:
        return
    if is_op(node, "MatMul", "Gemm") or node.op_type == "MatMulNBits":
        yield node
    elif activation_name(node) or is_op(node, "Add", "Sum", "Mul"):
        for given in node.inputs:
            yield from _sources(given, depth - 1)


class _Writing(Lowering):
    """What both lowerings do with a layer."""

    def __init__(self, standard: Iterable[str], stored: dict[tuple[object, ...], list[ir.Value | None]]) -> None:
        super().__init__(standard)
        self.stored = stored

    def rewrite(self, node: ir.Node, found: Layer, editor: Editor) -> str:
        stem = replaced_names(found.nodes)[0]
        weights = found.weights
        if weights.key not in self.stored:  # several layers may read one
            self.stored[weights.key] = written(weights, editor, stem)
        bias = None if found.bias is None else editor.constant(found.bias, f"{stem}/bias")
        attributes: dict[str, Any] = {"bits": weights.bits, "block_size": weights.block_size}
        attributes |= {"activation": found.activation} if found.activation else {}
        attributes |= {"gated": 1} if found.gated else {}
        assert found.x.dtype is not None
        made = emit(
            editor,
            "WeightOnlyLinear",
            [found.x, *self.stored[weights.key], bias, found.residual],
            attributes,
            [Result(found.x.dtype, found.result.shape)],
            before=found.nodes[-1],
            replaces=found.nodes,
        )
        editor.supersede(found.result, made.outputs[0])
        words = [found.activation, "gated" if found.gated else "", "residual" if found.residual is not None else ""]
        return " + ".join(["WeightOnlyLinear", *[word for word in words if word]]) + f", {weights}"


class _LowerGated(_Writing):
    anchors = ("Mul",)

    def find(self, node: ir.Node) -> Layer | None:
        first, second = node.inputs
        if first is None or second is None or first is second:
            return None
        if only_reader(first) is not node or only_reader(second) is not node:
            return None
        layers = [layer_ending_at(value) for value in (first, second)]
        if layers[0] is None or layers[1] is None or layers[0].x is not layers[1].x:
            return None
        gate, up = (layers[0], layers[1]) if not layers[1].activation else (layers[1], layers[0])
        weights = interleaved(gate.weights, up.weights)
        if weights is None or up.activation:
            return None
        bias = None
        if gate.bias is not None or up.bias is not None:
            nothing = np.zeros(gate.weights.shape[0], np.float32)
            bias = np.stack([nothing if layer.bias is None else layer.bias for layer in (gate, up)], axis=1).reshape(-1)
        layer = Layer(
            gate.x, weights, bias, gate.activation, None, node.outputs[0], (*gate.nodes, *up.nodes, node), gated=True
        )
        return _with_residual(layer)


class _LowerLayers(_Writing):
    anchors = ("MatMul", "Gemm", "MatMulNBits")
    domains = ("", "ai.onnx", "com.microsoft")

    def find(self, node: ir.Node) -> Layer | str | None:
        layer = find_layer(node)
        return _with_residual(layer) if isinstance(layer, Layer) else layer


class LowerWeightOnly(ir.passes.InPlacePass):
    """Linear layers whose weights alone have 4 or 8 bits become WeightOnlyLinear, in the main graph.

    1. Two layers of one input, of `find_layer` and with weights stored alike, whose results nobody reads but a Mul of
       the two, one after an activation or none: one gated layer.
    2. Every other layer of `find_layer`.
    3. With the sum of either's result and a float32 tensor of the same shape, where that is the only reader.

    Bodies are attached by AttachFunctions. Products that MatMulNBits computed with activations of 8 bits are then
    computed in float.

    Args:
        standard: names of nodes that are left to standard operators.

    Attributes:
        decisions: what became of every node that was looked at, and why; set by the call.

    Raises:
        onnx_ir.passes.PreconditionError: the model's opset is below 21, of which the operator's body is.
    """

    def __init__(self, standard: Iterable[str] = ()) -> None:
        super().__init__()
        self.standard = frozenset(standard)
        self.decisions: list[Decision] = []

    def requires(self, model: ir.Model) -> None:
        opset = model.graph.opset_imports.get("", 0)
        if opset < LEAST_OPSET:
            raise ir.passes.PreconditionError(f"opset {opset}: convert the model to {LEAST_OPSET} first")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        stored: dict[tuple[object, ...], list[ir.Value | None]] = {}
        steps = (_LowerGated(self.standard, stored), _LowerLayers(self.standard, stored))
        modified = [step(model).modified for step in steps]
        self.decisions = [decision for step in steps for decision in step.decisions]
        return ir.passes.PassResult(model, any(modified))
