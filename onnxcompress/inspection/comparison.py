"""`diff`: how two models differ, in structure and, with data, layer by layer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxcompress.data import Data, open_data
from onnxcompress.inspection.facts import Shape, type_name
from onnxcompress.inspection.inspector import count_operators
from onnxcompress.inspection.operators import declared_facts
from onnxcompress.inspection.walk import walk_model
from onnxcompress.inspection.weights import Uses, pieces, stored_tensors
from onnxcompress.model_io import Source, file_bytes, load_model
from onnxcompress.progress import Progress, silent

if TYPE_CHECKING:
    from onnxcompress.inspection.layers import LayerError


@dataclass(frozen=True)
class TensorChange:
    """A stored tensor that is not the same in both; None on the side that lacks it."""

    name: str
    dtype_a: str | None
    shape_a: Shape | None
    dtype_b: str | None
    shape_b: Shape | None


@dataclass(frozen=True)
class Totals:
    """Sizes of one model; `file_bytes` None for a model that is not a file."""

    nodes: int
    parameters: int
    weight_bytes: int
    file_bytes: int | None


@dataclass(frozen=True)
class Difference:
    """How model B differs from model A.

    Attributes:
        operators: by operator, count in A and in B, where they differ.
        opsets: by domain, version in A and in B, where they differ.
        added, removed, changed: stored tensors of B only, of A only; of both, but with another type,
            shape or value.
        interface: graph inputs and outputs with another type or shape, or on one side only.
        layers: error of every float value the two share, worst first; None without data.
        samples: feeds run.
        notes: what could not be compared.
    """

    a: Totals
    b: Totals
    operators: Mapping[str, tuple[int, int]]
    opsets: Mapping[str, tuple[int | None, int | None]]
    added: tuple[TensorChange, ...]
    removed: tuple[TensorChange, ...]
    changed: tuple[TensorChange, ...]
    interface: tuple[TensorChange, ...]
    layers: tuple[LayerError, ...] | None
    samples: int
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether no difference of structure or weights was found (how nodes are wired is not compared)."""
        return not (self.operators or self.opsets or self.added or self.removed or self.changed or self.interface)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "same": self.same}


def diff(a: Source, b: Source, *, data: Data | None = None, progress: Progress = silent) -> Difference:
    """Compare two models.

    Args:
        a: the original: a path or a model.
        b: the other one.
        data: feeds for A's inputs; both models run them with their shared values as extra outputs, in groups
            of at most 128 MB, each group one pass over the data. Nothing is held from one feed to the next.
        progress: told of the feeds run.

    Raises:
        ModelError: a model cannot be read or opened in ONNX Runtime.
        DataError: the data cannot be read or does not fit, or holds no feed.
    """
    first, second = load_model(a), load_model(b)
    layers: tuple[LayerError, ...] | None = None
    samples, notes = 0, list[str]()
    if data is not None:
        from onnxcompress.inspection.layers import compare_layers  # brings ONNX Runtime

        layers, samples, notes = compare_layers(first, second, open_data(data, first), progress)
    added, removed, changed = _tensor_changes(first, second)
    return Difference(
        _totals(first, a),
        _totals(second, b),
        _changes(count_operators(first), count_operators(second), 0),
        _changes(first.opset_imports, second.opset_imports, None),
        added,
        removed,
        changed,
        tuple(_interface(first, second)),
        layers,
        samples,
        tuple(notes),
    )


def _changes(a: Mapping[str, Any], b: Mapping[str, Any], absent: Any) -> dict[str, tuple[Any, Any]]:
    names = [*a, *(name for name in b if name not in a)]
    return {n: (a.get(n, absent), b.get(n, absent)) for n in names if a.get(n, absent) != b.get(n, absent)}


def _totals(model: ir.Model, source: Source) -> Totals:
    uses = Uses(walk_model(model).visits)
    stored = list(stored_tensors(model))
    return Totals(
        sum(1 for _ in model.graph.all_nodes()),
        sum(uses.elements(value, tensor) for value, tensor in stored),
        sum(tensor.nbytes for _, tensor in stored),
        file_bytes(source) if isinstance(source, (str, os.PathLike)) else None,
    )


def _tensor_changes(
    a: ir.Model, b: ir.Model
) -> tuple[tuple[TensorChange, ...], tuple[TensorChange, ...], tuple[TensorChange, ...]]:
    of_a, of_b = ({v.name or "": tensor for v, tensor in stored_tensors(model)} for model in (a, b))
    change = [(n, of_a.get(n), of_b.get(n)) for n in {**of_a, **of_b}]
    added = tuple(_tensor_change(*item) for item in change if item[1] is None)
    removed = tuple(_tensor_change(*item) for item in change if item[2] is None)
    changed = tuple(
        _tensor_change(name, x, y) for name, x, y in change if x is not None and y is not None and not _equal(x, y)
    )
    return added, removed, changed


def _tensor_change(name: str, a: ir.TensorProtocol | None, b: ir.TensorProtocol | None) -> TensorChange:
    return TensorChange(name, *_described(a), *_described(b))


def _described(tensor: ir.TensorProtocol | None) -> tuple[str | None, Shape | None]:
    return (None, None) if tensor is None else (type_name(tensor.dtype), tuple(tensor.shape.numpy()))


def _equal(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    if a is b:
        return True
    return _described(a) == _described(b) and _digest(a) == _digest(b)


def _digest(tensor: ir.TensorProtocol) -> bytes:
    total = hashlib.sha256()
    if tensor.dtype == ir.DataType.STRING:
        total.update(repr(tensor.numpy().tolist()).encode())
        return total.digest()
    for piece in pieces(tensor):
        total.update(piece.tobytes())
    return total.digest()


def _interface(a: ir.Model, b: ir.Model) -> list[TensorChange]:
    changes = []
    for values_a, values_b in ((a.graph.inputs, b.graph.inputs), (a.graph.outputs, b.graph.outputs)):
        of_a, of_b = ({v.name or "": v for v in values} for values in (values_a, values_b))
        for name in {**of_a, **of_b}:
            change = TensorChange(name, *_declared(of_a.get(name)), *_declared(of_b.get(name)))
            if (change.dtype_a, change.shape_a) != (change.dtype_b, change.shape_b) or len(
                {name in of_a, name in of_b}
            ) > 1:
                changes.append(change)
    return changes


def _declared(value: ir.Value | None) -> tuple[str | None, Shape | None]:
    if value is None:
        return None, None
    facts = declared_facts(value)
    return type_name(facts.dtype), facts.shape
