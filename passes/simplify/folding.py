"""Computing what depends on constants only."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxcompress.passes.simplify.editor import (
    STANDARD_DOMAINS,
    Array,
    Editor,
    all_nodes,
    attribute,
    only_reader,
    tensor_of,
)

LARGE_BYTES = 1 << 20
"""Constants outside the file above this are never looked at while a pass runs."""

MOST_BYTES = 1 << 28
"""A node that reads more bytes than this is not folded."""

GROWTH_BYTES = 1024
"""A folded node may cost this many bytes more than the constants that it frees."""

FOLDABLE = frozenset(
    """
    Abs Add And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
    Clip Concat ConstantOfShape Cos CumSum Div Equal Erf Exp Expand EyeLike Flatten Floor Gather
    GatherElements GatherND Greater GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log MatMul Max
    Mean Min Mod Mul Neg NonZero Not OneHot Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum Relu Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size Slice
    Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905 - a table is read as words
)
"""Standard ops whose result depends on their inputs and attributes alone, and that onnx's reference gets right."""


class FoldConstants(ir.passes.InPlacePass):
    """Compute nodes whose inputs are all constant.

    Constant nodes that share intermediate results, or a constant of more than 64 bytes, are one cluster.

    Cases:
      1. A cluster of ops of the table below whose results take no more bytes than the constants that they free,
         plus 1 KB: computed by onnx's reference implementation. A Transpose, Cast or the like of weights, but
         also slices of weights that are put together in another order.
      2. Where the whole cluster would grow, its nodes one by one.
      3. Constants outside the file, or not computed yet, above 1 MB: a Transpose that alone reads one becomes a
         lazy tensor, computed when the model is written, one at a time; all else stays.
      4. DequantizeLinear, QuantizeLinear, random and stateful ops, ops with subgraphs: never, for folding
         them grows the file or changes what it means.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor = Editor(model)
        for cluster in _clusters(model):
            if len(cluster) > 1 and self._fold(cluster, editor):
                continue
            for node in cluster:
                constant = all(v is None or tensor_of(v) is not None for v in node.inputs)
                if node.graph is not None and constant and not self._fold([node], editor):
                    self._lazy(node, editor)
        return ir.passes.PassResult(model, bool(editor.changes))

    def _fold(self, cluster: list[ir.Node], editor: Editor) -> bool:
        nodes = set(cluster)
        sources = {v: tensor_of(v) for n in cluster for v in n.inputs if v is not None and tensor_of(v) is not None}
        if any(_far(tensor) for tensor in sources.values()):
            return False
        freed = sum(
            t.nbytes for v, t in sources.items()
            if t is not None and not v.is_graph_output() and all(use.node in nodes for use in v.uses())
        )  # fmt: skip
        kept = [
            output for node in cluster for output in node.outputs
            if output.is_graph_output() or any(use.node not in nodes for use in output.uses())
        ]  # fmt: skip
        sizes = [_value_bytes(value) for value in kept]
        if any(v.is_graph_output() for v in kept) or sum(s or 0 for s in sizes) > freed + GROWTH_BYTES:
            return False
        values: dict[ir.Value, Array] = {}
        for node in cluster:
            arrays = [None if v is None else values[v] if v in values else _array(sources[v]) for v in node.inputs]
            if sum(0 if a is None else a.nbytes for a in arrays) > MOST_BYTES:
                return False
            try:
                results = evaluate(node, arrays, editor.opset)
            except Exception:  # an op or a type that the reference does not know: the nodes stay
                return False
            values.update(zip(node.outputs, results, strict=True))
        if sum(values[v].nbytes for v in kept) > freed + GROWTH_BYTES:
            return False
        for value in kept:
            editor.put_constant(value, values[value])
        for node in reversed(cluster):
            editor.collect(node)
        return True

    def _lazy(self, node: ir.Node, editor: Editor) -> None:
        value = node.inputs[0]
        source = tensor_of(value)
        if source is None or value is None or node.op_type != "Transpose" or only_reader(value) is not node:
            return
        if not _far(source) or node.outputs[0].is_graph_output():
            return
        axes = attribute(node, "perm") or tuple(reversed(range(len(source.shape))))
        shape = ir.Shape([source.shape[a] for a in axes])
        name = node.outputs[0].name or "transposed"
        tensor = lazy_tensor(source, lambda array: array.transpose(axes), source.dtype, shape, name)
        editor.put_constant(node.outputs[0], tensor)


def _array(tensor: ir.TensorProtocol | None) -> Array:
    assert tensor is not None
    return tensor.numpy()


def _far(tensor: ir.TensorProtocol | None) -> bool:
    """Whether looking at a tensor costs memory that is not spent yet."""
    return isinstance(tensor, ir.ExternalTensor | ir.LazyTensor) and tensor.nbytes > LARGE_BYTES


def _clusters(model: ir.Model) -> list[list[ir.Node]]:
    """Foldable nodes that depend on constants only, in order, in groups that share data."""
    constant: dict[ir.Value, int] = {}
    parents: list[int] = []
    order: list[ir.Node] = []

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    for node in all_nodes(model):
        if node.op_type not in FOLDABLE or node.domain not in STANDARD_DOMAINS or not any(node.inputs):
            continue
        if any(v is not None and v not in constant and tensor_of(v) is None for v in node.inputs):
            continue
        number = len(order)
        order.append(node)
        parents.append(number)
        for value in node.inputs:
            tensor = tensor_of(value)
            if value is None or (tensor is not None and tensor.nbytes <= 64):
                continue
            parents[root(constant.setdefault(value, number))] = root(number)
        for output in node.outputs:
            constant[output] = number
    groups: dict[int, list[ir.Node]] = {}
    for number, node in enumerate(order):
        groups.setdefault(root(number), []).append(node)
    return list(groups.values())


def lazy_tensor(
    source: ir.TensorProtocol,
    function: Callable[[Array], Array],
    dtype: ir.DataType,
    shape: ir.Shape,
    name: str,
) -> ir.LazyTensor:
    """A tensor computed from another when it is written; the other's file mapping is let go after it."""

    def compute() -> ir.TensorProtocol:
        array = np.ascontiguousarray(function(source.numpy()))
        if isinstance(source, ir.ExternalTensor):
            array = array.copy() if array.base is not None else array
            source.release()
        return ir.Tensor(array, dtype=dtype, name=name)

    return ir.LazyTensor(compute, dtype=dtype, shape=shape, name=name)


def evaluate(node: ir.Node, inputs: list[Array | None], opset: int) -> list[Array]:
    """A standard node's outputs for given inputs, by onnx's reference implementation.

    Raises:
        Exception: of whatever kind the implementation raises for what it cannot do.
    """
    proto = onnx.NodeProto(op_type=node.op_type, name=node.name or "")
    names = ["" if array is None else f"i{i}" for i, array in enumerate(inputs)]
    proto.input.extend(names)
    proto.output.extend(f"o{i}" for i in range(len(node.outputs)))
    for item in node.attributes.values():
        proto.attribute.append(ir.serde.serialize_attribute(item))
    graph = onnx.helper.make_graph(
        [proto], "g",
        [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in names if n],
        [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in proto.output],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = {n: a for n, a in zip(names, inputs, strict=True) if n}
    results = [np.asarray(r) for r in ReferenceEvaluator(model).run(None, feeds)]
    for result, output in zip(results, node.outputs, strict=True):
        if output.dtype is not None and ir.DataType.from_numpy(result.dtype) != output.dtype:
            raise TypeError(f"{node.op_type} gave {result.dtype} in place of {output.dtype}")
    return results


def _value_bytes(value: ir.Value) -> int | None:
    """Bytes of a value, where its shape tells."""
    if value.shape is None or value.dtype is None or not all(isinstance(d, int) for d in value.shape):
        return None
    dims = [int(d) for d in value.shape if isinstance(d, int)]
    return math.ceil(math.prod(dims) * value.dtype.itemsize)
