"""What the lowerings share: the walk, the decisions, and how a node of ours is written and a quantized tensor read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.passes.lower.functions import REPLACES, replaced_nodes
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.simplify.editor import Editor, array_of, is_op, producer, tensor_of

Array = np.ndarray[Any, Any]

KEPT = "it is kept in standard operators"


class Lowering(ir.passes.InPlacePass):
    """Looks at each node of `anchors` in the main graph once, in order.

    Args:
        standard: names of nodes that are not lowered.

    Attributes:
        anchors: the operators that a pattern starts from.
        decisions: what became of the nodes that were looked at, and of all that went into one with them; set by the
            call. `quantized` says whether the node was lowered, `reason` to what, or why not.
    """

    anchors: tuple[str, ...] = ()
    domains: tuple[str, ...] = ("", "ai.onnx")

    def __init__(self, standard: Iterable[str] = ()) -> None:
        super().__init__()
        self.standard = frozenset(standard)
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor = Editor(model)
        self.decisions = []
        for node in list(model.graph):
            if node.graph is None or node.op_type not in self.anchors or node.domain not in self.domains:
                continue
            found = self.find(node)
            if found is None:
                continue
            nodes = [node, *(n for n in getattr(found, "nodes", ()) if n is not node)]
            if self.standard.intersection(replaced_names(nodes)):
                found, nodes = KEPT, [node]
            named = [(name, n.op_type) for n in nodes for name in replaced_names([n])]
            done = not isinstance(found, str)
            outcome = self.rewrite(node, found, editor) if done else found
            self.decisions += [Decision(name, op_type, done, outcome) for name, op_type in named]
        if editor.changes:
            model.graph.opset_imports.setdefault(DOMAIN, 1)
        return ir.passes.PassResult(model, editor.changes > 0)

    def find(self, node: ir.Node) -> Any:
        """The pattern around a node, a reason why it stays (a string), or None: none of this pass's business."""
        raise NotImplementedError

    def rewrite(self, node: ir.Node, found: Any, editor: Editor) -> str:
        """Make the change; gives what the node became."""
        raise NotImplementedError


def label(node: ir.Node) -> str:
    """A node's name, or that of what it makes."""
    return node.name or node.outputs[0].name or ""


class Quantized(NamedTuple):
    """A uint8 tensor with one scale and one zero point, both constant: real = (value - zero_point) * scale."""

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value

    def same_parameters(self, other: Quantized) -> bool:
        """Whether equal bytes mean equal numbers."""
        pairs = ((self.scale, other.scale), (self.zero_point, other.zero_point))
        return all(a is b or np.array_equal(_constant(a), _constant(b)) for a, b in pairs)


def dequantized(value: ir.Value | None) -> Quantized | None:
    """The tensor that a DequantizeLinear makes `value` of."""
    node = producer(value, "DequantizeLinear")
    return None if node is None or node.inputs[0] is None else _quantized(node, node.inputs[0])


def quantizer(node: ir.Node | None) -> Quantized | None:
    """The tensor that a QuantizeLinear makes."""
    return _quantized(node, node.outputs[0]) if node is not None and is_op(node, "QuantizeLinear") else None


def _quantized(node: ir.Node, value: ir.Value) -> Quantized | None:
    if len(node.inputs) != 3 or tensor_of(value) is not None:
        return None
    scale, zero = node.inputs[1:]
    if scale is None or zero is None or scale.dtype != ir.DataType.FLOAT or zero.dtype != ir.DataType.UINT8:
        return None
    arrays = array_of(scale, limit=64), array_of(zero, limit=64)
    if any(array is None or array.size != 1 for array in arrays):
        return None
    return Quantized(value, scale, zero)


def _constant(value: ir.Value) -> Array:
    tensor = tensor_of(value)
    assert tensor is not None
    return tensor.numpy().reshape(-1)


def only_quantizer(value: ir.Value) -> Quantized | None:
    """The quantized form of a value that nobody but its QuantizeLinear reads."""
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    return quantizer(value.consumers()[0])


def scalar(editor: Editor, value: ir.Value) -> ir.Value:
    """A constant of one element as one of rank 0."""
    array = _constant(value)
    return value if value.shape is not None and len(value.shape) == 0 else editor.constant(array.reshape(()), "scalar")


class Result(NamedTuple):
    """An output of a new node."""

    dtype: ir.DataType
    shape: ir.Shape | None


def real(like: ir.Value) -> Result:
    """A float32 output of the shape of a value."""
    return Result(ir.DataType.FLOAT, like.shape)


def bytes_like(like: ir.Value) -> Result:
    """A uint8 output of the shape of a value."""
    return Result(ir.DataType.UINT8, like.shape)


def emit(
    editor: Editor,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any],
    outputs: Sequence[Result | None],
    *,
    before: ir.Node,
    replaces: Iterable[ir.Node],
) -> ir.Node:
    """A node of ours in front of `before`; None among inputs and outputs is one left out."""
    given = list(inputs)
    while given and given[-1] is None:
        given.pop()
    wanted = list(outputs)
    while wanted and wanted[-1] is None:
        wanted.pop()
    names = replaced_names(replaces)
    node = editor.insert(op_type, given, attributes, before=before, outputs=len(wanted), domain=DOMAIN, stem=names[0])
    for value, result in zip(node.outputs, wanted, strict=True):
        if result is None:
            value.name = ""
        else:
            value.type = ir.TensorType(result.dtype)
            value.shape = None if result.shape is None else result.shape.copy()
    node.metadata_props.clear()
    node.metadata_props[REPLACES] = "\n".join(names)
    return node


def support(
    editor: Editor,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any],
    result: Result,
    *,
    before: ir.Node,
) -> ir.Value:
    """The result of a standard node that comes with a node of ours and replaces none of the model's."""
    node = editor.insert(op_type, inputs, attributes, before=before)
    node.metadata_props.clear()
    node.metadata_props[REPLACES] = ""
    node.outputs[0].type = ir.TensorType(result.dtype)
    node.outputs[0].shape = None if result.shape is None else result.shape.copy()
    return node.outputs[0]


def replaced_names(nodes: Iterable[ir.Node]) -> list[str]:
    """The names of nodes of the model that went into these, each once; products with constant matrices come first."""
    names: dict[str, bool] = {}
    for node in nodes:
        if REPLACES in node.metadata_props:
            names.update((name, False) for name in replaced_nodes(node))
        else:
            names[label(node)] = is_op(node, "MatMul", "Gemm")
    return sorted(names, key=lambda name: not names[name])
