"""`inspect`: what is in a model and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from onnxcompress.inspection.coverage import Consumers, classify, summarize
from onnxcompress.inspection.facts import Facts, Visit, type_name
from onnxcompress.inspection.results import Inspection, NodeReport, Quantization, TensorReport, ValueReport
from onnxcompress.inspection.walk import Walk, walk_model
from onnxcompress.inspection.weights import Uses, owners, report_tensor, stored_tensors
from onnxcompress.model_io import Source, load_model
from onnxcompress.passes.lower import replaced_nodes
from onnxcompress.progress import Progress, silent

ATTRIBUTE_WIDTH = 200


def inspect(
    model: Source, *, shapes: Mapping[str, Sequence[int]] | None = None, progress: Progress = silent
) -> Inspection:
    """Look at a model without running it.

    Weights are read one at a time and external ones in pieces of 16 MB: a model larger than memory is fine.

    Args:
        model: a path or a model; unchanged.
        shapes: shape by input name, for inputs with dynamic dimensions.
        progress: told of the tensors read.

    Returns:
        Totals, operators, sparsity, quantization coverage, and a report on every tensor and node. What depends
        on shapes that stay unknown is counted apart (`unknown_macs`, `unknown_activations`).

    Raises:
        ModelError: the model cannot be read, or `shapes` do not fit its inputs.
    """
    loaded = load_model(model)
    walk = walk_model(loaded, shapes)
    uses = Uses(walk.visits)
    stored = list(stored_tensors(loaded))
    tensors: dict[ir.Value, TensorReport] = {}
    for index, (value, tensor) in enumerate(stored):
        progress("reading weights", index, len(stored))
        tensors[value] = report_tensor(value, tensor, uses)
    consumers = Consumers(walk.visits, walk.outputs.values())
    static = all(isinstance(d, int) for v in loaded.graph.inputs if v.shape is not None for d in v.shape)
    found = [classify(visit, consumers, static=static) for visit in walk.visits]
    nodes = tuple(
        report_node(visit, quantization, tensors) for visit, quantization in zip(walk.visits, found, strict=True)
    )
    return _assemble(loaded, walk, tuple(tensors.values()), nodes, found)


def report_node(
    visit: Visit, quantization: Quantization | None, tensors: Mapping[ir.Value, TensorReport]
) -> NodeReport:
    """One visit as plain values."""
    constant = bool(visit.outputs) and all(facts.constant for facts in visit.outputs)
    taken = [] if constant or visit.container else [f for f in visit.inputs if f is not None and f.constant]
    roots = dict.fromkeys(root for facts in taken for root in facts.roots)
    sizes = [facts.nbytes for facts in visit.outputs if facts.name]
    known = None if None in sizes else visit.executions * sum(size or 0 for size in sizes)
    return NodeReport(
        visit.name,
        visit.op,
        visit.scope,
        tuple(None if facts is None else report_value(facts) for facts in visit.inputs),
        tuple(report_value(facts) for facts in visit.outputs),
        {name: _attribute_text(attribute) for name, attribute in visit.attributes.items()},
        visit.macs,
        sum(tensors[root].elements for root in roots if root in tensors and tensors[root].parameter),
        tuple(root.name or "" for root in roots),
        0 if constant or visit.container else known,
        visit.executions,
        visit.counted,
        quantization,
        tuple(replaced_nodes(visit.node)),
    )


def report_value(facts: Facts) -> ValueReport:
    """A value's facts as plain values."""
    return ValueReport(facts.name, type_name(facts.dtype), facts.shape, facts.constant)


def _assemble(
    model: ir.Model,
    walk: Walk,
    tensors: tuple[TensorReport, ...],
    nodes: tuple[NodeReport, ...],
    found: Sequence[Quantization | None],
) -> Inspection:
    by_dtype: Counter[str] = Counter()
    for tensor in tensors:
        by_dtype[tensor.dtype] += tensor.bytes
    matrices = [t for t in tensors if t.parameter and len(t.shape) >= 2 and t.zeros is not None]
    elements = sum(t.elements for t in matrices)
    counted = [node for node in nodes if node.counted]
    unknown = [node for node in counted if node.macs is None]
    return Inspection(
        ir_version=model.ir_version,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        opsets=dict(model.opset_imports),
        metadata=dict(model.metadata_props),
        functions={_function_name(f): sum(1 for _ in f.all_nodes()) for f in model.functions.values()},
        inputs=tuple(report_value(facts) for facts in walk.inputs.values()),
        outputs=tuple(report_value(facts) for facts in walk.outputs.values()),
        parameters=sum(t.elements for t in tensors if t.parameter),
        weight_bytes=sum(t.bytes for t in tensors),
        bytes_by_dtype=dict(by_dtype.most_common()),
        macs=sum(node.macs or 0 for node in counted),
        unknown_macs=len(unknown),
        activation_bytes=sum(node.activation_bytes or 0 for node in counted),
        unknown_activations=sum(node.activation_bytes is None for node in counted),
        operators=dict(count_operators(model).most_common()),
        sparsity=sum(t.zeros or 0 for t in matrices) / elements if elements else None,
        coverage=summarize(walk.visits, found),
        external_files=_external_files(model),
        tensors=tensors,
        nodes=nodes,
        notes=tuple(_notes(walk, unknown)),
    )


def count_operators(model: ir.Model) -> Counter[str]:
    """Nodes by operator, those of a function once; function bodies of our own operators are left out."""
    count: Counter[str] = Counter()
    for owner in owners(model):
        for node in owner.all_nodes():
            count[node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"] += 1
    return count


def _external_files(model: ir.Model) -> dict[str, int]:
    files = {
        str(tensor.location): Path(tensor.path)
        for _, tensor in stored_tensors(model)
        if isinstance(tensor, ir.ExternalTensor)
    }
    return {name: path.stat().st_size for name, path in files.items() if path.is_file()}


def _notes(walk: Walk, unknown: Sequence[NodeReport]) -> list[str]:
    notes = list(walk.notes)
    if unknown:
        open_inputs = [
            f"{name}={','.join('?' if not isinstance(d, int) else str(d) for d in facts.shape or ('...',))}"
            for name, facts in walk.inputs.items()
            if facts.size is None
        ]
        hint = f"; give --shape {' --shape '.join(open_inputs)}" if open_inputs else ""
        notes.append(f"MACs of {len(unknown)} nodes are unknown (first: {unknown[0].name}){hint}")
    return notes


def _function_name(function: ir.Function) -> str:
    name = f"{function.domain}::{function.name}"
    return f"{name}:{function.overload}" if function.overload else name


def _attribute_text(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{type_name(tensor.dtype)}{list(tensor.shape)}"
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "graph"
    value = attribute.value
    text = str(list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else value)
    return text if len(text) <= ATTRIBUTE_WIDTH else text[: ATTRIBUTE_WIDTH - 3] + "..."
