"""`extract`: a subgraph as a model of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from onnxcompress.errors import ModelError
from onnxcompress.inspection.facts import Facts
from onnxcompress.inspection.walk import walk_model
from onnxcompress.model_io import Source, load_model


def extract(
    model: Source,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> ir.Model:
    """Cut out the part of the main graph that computes `outputs` from `inputs`.

    Weights, opsets, metadata and the functions it uses come along; types and shapes of the new inputs and
    outputs are inferred.

    Args:
        model: a path or a model; unchanged.
        inputs: value names that become the inputs, in this order. A weight may be among them.
        outputs: value names that become the outputs, in this order.
        shapes: shape by name of the model's own inputs, where they are dynamic and the new ones shall not.

    Raises:
        ModelError: a name is unknown or given twice, a type cannot be inferred, an output depends on inputs of
            the model that `inputs` do not cut off, or no output depends on an input.
    """
    source = load_model(model)
    if not inputs or not outputs:
        raise ModelError("extract needs at least one input and one output")
    known = walk_model(source, shapes).values
    cut = source.clone()
    values = _named_values(cut.graph)
    _check_names(inputs, outputs, values)
    starts, ends = [values[name] for name in inputs], [values[name] for name in outputs]
    needed, used = _needed_nodes(ends, set(starts))
    _check_inputs(cut.graph, starts, ends, used)
    order = [node for node in cut.graph if node in needed]
    weights = [value for value in used if value.const_value is not None and value.is_initializer()]
    for value in (*starts, *ends):
        _set_type(value, known.get(value.name or ""))
    result = _assemble(cut, order, starts, ends, [value for value in weights if value not in set(starts)])
    _keep_used_functions(result)
    return result


def split_names(model: ir.Model, texts: Iterable[str]) -> list[str]:
    """Names given as `a,b`; a name that has a comma itself and is one of the model's values stays whole."""
    values = _named_values(model.graph)
    names: list[str] = []
    for text in texts:
        names += [text] if text in values else [name.strip() for name in text.split(",") if name.strip()]
    return names


def _named_values(graph: ir.Graph) -> dict[str, ir.Value]:
    values = {value.name: value for value in (*graph.inputs, *graph.initializers.values()) if value.name}
    values.update({value.name: value for node in graph for value in node.outputs if value.name})
    return values


def _check_names(inputs: Sequence[str], outputs: Sequence[str], values: Mapping[str, ir.Value]) -> None:
    for kind, names in (("input", inputs), ("output", outputs)):
        unknown = [name for name in names if name not in values]
        if unknown:
            close = [name for name in values if unknown[0].lower() in name.lower()][:3]
            hint = f"; did you mean {', '.join(close)}?" if close else "; inspect --nodes lists the values"
            raise ModelError(f"no value of the main graph is named {', '.join(map(repr, unknown))}{hint}")
        if len(set(names)) < len(names):
            double = next(name for name in names if list(names).count(name) > 1)
            raise ModelError(f"{kind} {double!r} is given twice")
    both = [name for name in inputs if name in outputs]
    if both:
        raise ModelError(f"{both[0]!r} is both an input and an output")


def _needed_nodes(ends: Iterable[ir.Value], starts: set[ir.Value]) -> tuple[set[ir.Node], list[ir.Value]]:
    """Nodes between starts and ends, and every value they take from outside: starts, inputs, weights."""
    needed: set[ir.Node] = set()
    used: dict[ir.Value, None] = {}
    left = list(ends)
    while left:
        value = left.pop()
        producer = value.producer()
        if value in starts or producer is None:
            used[value] = None
        elif producer not in needed:
            needed.add(producer)
            left.extend(_taken(producer))
    return needed, list(used)


def _taken(node: ir.Node) -> list[ir.Value]:
    """Values a node takes from the graph it stands in; a subgraph's captured ones too."""
    taken = [value for value in node.inputs if value is not None]
    owner = node.graph
    for attribute in node.attributes.values():
        graphs = [attribute.value] if attribute.type == ir.AttributeType.GRAPH else (
            attribute.value if attribute.type == ir.AttributeType.GRAPHS else []
        )  # fmt: skip
        for graph in graphs:
            for inner in graph.all_nodes():
                taken.extend(v for v in inner.inputs if v is not None and v.graph is owner)
            taken.extend(v for v in graph.outputs if v.graph is owner)
    return taken


def _check_inputs(
    graph: ir.Graph, starts: Sequence[ir.Value], ends: Sequence[ir.Value], used: Sequence[ir.Value]
) -> None:
    # An initializer that is also an input (IR 3) has a value: it comes along as a weight.
    missing = [v.name for v in used if v not in starts and v.const_value is None and v.name]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise ModelError(f"{', '.join(repr(v.name) for v in ends)} also needs {names}: add it to the inputs")
    unused = [value.name for value in starts if value not in used]
    if unused:
        raise ModelError(f"no output depends on input {unused[0]!r}: leave it out, or add an output that does")


def _set_type(value: ir.Value, facts: Facts | None) -> None:
    if facts is not None and facts.dtype is not None:
        value.type = ir.TensorType(facts.dtype)
        value.shape = None if facts.shape is None else ir.Shape(facts.shape)
    if value.type is None:
        raise ModelError(f"the type of {value.name!r} cannot be inferred: choose another value, or optimize first")


def _assemble(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    starts: Sequence[ir.Value],
    ends: Sequence[ir.Value],
    weights: Sequence[ir.Value],
) -> ir.Model:
    """A model of nodes and weights taken out of `model`, which is used up."""
    graph = model.graph
    graph.outputs.clear()
    graph.inputs.clear()
    for name in list(graph.initializers):
        del graph.initializers[name]
    inputs = []
    for value in starts:
        fresh = ir.Value(name=value.name, type=value.type, shape=value.shape)
        fresh.metadata_props.update(value.metadata_props)
        value.replace_all_uses_with(fresh)
        if value.producer() in nodes:  # its node stays, for another of its outputs
            value.name = f"{value.name}_before_extract"
        inputs.append(fresh)
    for node in list(graph):
        graph.remove(node)
    part = ir.Graph(
        inputs,
        ends,
        nodes=nodes,
        initializers=weights,
        opset_imports=dict(graph.opset_imports),
        name=graph.name,
        doc_string=graph.doc_string,
        metadata_props=dict(graph.metadata_props),
    )
    result = ir.Model(
        part,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=list(model.functions.values()),
        metadata_props=dict(model.metadata_props),
    )
    # The nodes left behind still count as users of the values taken: a clone knows nothing of them.
    return result.clone()


def _keep_used_functions(model: ir.Model) -> None:
    used: set[ir.OperatorIdentifier] = set()
    left = list(model.graph.all_nodes())
    while left:
        identifier = left.pop().op_identifier()
        if identifier in model.functions and identifier not in used:
            used.add(identifier)
            left.extend(model.functions[identifier].all_nodes())
    for identifier in list(model.functions):
        if identifier not in used:
            del model.functions[identifier]
