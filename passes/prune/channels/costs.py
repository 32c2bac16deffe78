"""Multiply-accumulates of a model, whole and after a cut: each node's are in proportion to the axes it runs over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, leaves, share
from onnxcompress.passes.prune.channels.trace import Trace, shapes_of
from onnxcompress.passes.simplify.editor import attribute, dims_of, tensor_of
from onnxcompress.passes.simplify.inference import InferShapes

NOMINAL_LENGTH, NOMINAL_SIDE = 128, 224
"""Stand-ins for dimensions that an input leaves open: of sequences, and of images (axes 2 on of rank 4 and more)."""

RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Term:
    """A node's multiply-accumulates, and the axes that they are in proportion to."""

    macs: float
    dims: tuple[Dim, ...]

    def after(self, counts: Mapping[Dim, int]) -> float:
        """What is left of them when leaves keep so many positions."""
        return self.macs * prod(share(dim, counts) for dim in self.dims)

    def leaves(self) -> set[Dim]:
        return {leaf for dim in self.dims for leaf in leaves(dim)}


def cost_terms(model: ir.Model, trace: Trace, shapes: Mapping[str, Sequence[int]] | None = None) -> list[Term]:
    """The multiply-accumulates of the main graph's Conv, ConvTranspose, MatMul, Gemm, Einsum, LSTM, GRU and RNN nodes.

    Args:
        shapes: input name -> dimensions to count for. What inputs leave open besides is batch 1 and a nominal size,
            which shifts the balance between layers that see many places and those that see few.

    Raises:
        ValueError: no such input, or a shape of another rank.
    """
    known = _counted_shapes(model, shapes or {})
    terms = [Term(_macs(cost.node, known), cost.dims) for cost in trace.costs]
    recurrent = [node for node in model.graph if node.op_type in RECURRENT and len(node.inputs) > 2]
    return [*terms, *(Term(_recurrent(node, known), ()) for node in recurrent)]


Shapes = Mapping[str, Sequence[int]]


def _counted_shapes(model: ir.Model, shapes: Shapes) -> Shapes:
    copy = model.clone()
    inputs = {value.name: value for value in copy.graph.inputs}
    for name, given in shapes.items():
        if name not in inputs:
            raise ValueError(f"the model has no input {name!r}")
        declared = inputs[name].shape
        if declared is not None and len(declared) != len(given):
            raise ValueError(f"input {name!r} has {len(declared)} axes, not {len(given)}")
        inputs[name].shape = ir.Shape(given)
    for value in copy.graph.inputs:
        if value.shape is not None:
            sizes = [d if isinstance(d, int) else _nominal(i, len(value.shape)) for i, d in enumerate(value.shape)]
            value.shape = ir.Shape(sizes)
    InferShapes()(copy)
    found = shapes_of(copy)
    # What inference does not know counts once: it is the same before and after a cut.
    return {name: [d if isinstance(d, int) else 1 for d in shape] for name, shape in found.items()}


def _nominal(axis: int, rank: int) -> int:
    if axis == 0:
        return 1
    return NOMINAL_SIDE if rank > 3 and axis > 1 else NOMINAL_LENGTH


def _shape(value: ir.Value | None, known: Shapes) -> Sequence[int]:
    tensor = tensor_of(value)
    if tensor is not None:
        return dims_of(tensor)
    return () if value is None else known.get(value.name or "", ())


def _macs(node: ir.Node, known: Shapes) -> float:
    first, second = (_shape(value, known) for value in node.inputs[:2]) if len(node.inputs) > 1 else ((), ())
    result = _shape(node.outputs[0], known)
    match node.op_type:
        case "Conv":  # each element of the result takes one product with each weight of a filter
            return float(prod(result) * prod(second[1:]))
        case "ConvTranspose":  # each element of the data is multiplied with its weights
            return float(prod(first) * prod(second[1:]))
        case "Einsum":
            terms = str(attribute(node, "equation", "")).replace(" ", "").partition("->")[0].split(",")
            sizes: dict[str, int] = {}
            for term, shape in zip(terms, (first, second), strict=False):
                sizes.update(zip(term, shape, strict=False))
            return float(prod(sizes.values()))
        case "Gemm":
            inner = first[:1] if attribute(node, "transA", 0) else first[-1:]
            return float(prod(result) * prod(inner))
        case _:
            return float(prod(result) * prod(first[-1:]))


def _recurrent(node: ir.Node, known: Shapes) -> float:
    """Each step of each sequence meets every weight of both matrices."""
    steps = _shape(node.inputs[0], known)[:2]
    return float(prod(steps) * sum(prod(_shape(value, known)) for value in node.inputs[1:3]))


def total_macs(terms: Iterable[Term], counts: Mapping[Dim, int]) -> float:
    return sum(term.after(counts) for term in terms)
