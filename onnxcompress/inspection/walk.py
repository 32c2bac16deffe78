"""Walking a model as it would be run: every node of the graph, its subgraphs and functions, with shapes.

Nothing is changed and no weight is read: shapes go forward node by node, and small values (the arithmetic on
shapes that exporters write) are computed on the way, so that known input shapes give all shapes. The operators of
this project are not walked through: their function bodies are what runs without the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcompress.errors import ModelError
from onnxcompress.inspection.facts import Facts, Shape, Visit, common, stack
from onnxcompress.inspection.macs import count_macs
from onnxcompress.inspection.native import is_native
from onnxcompress.inspection.operators import (
    DATA_LIMIT,
    attribute_tensor,
    declared_facts,
    evaluate,
    infer_outputs,
)
from onnxcompress.ops import DOMAIN

Env = dict[ir.Value, Facts]
Attributes = Mapping[str, ir.Attr]

FUNCTION_DEPTH = 50


@dataclass
class Walk:
    """The visits of a model in order, and what could not be known.

    Attributes:
        visits: nodes of functions once for every call.
        inputs: the model's inputs, by name.
        values: the facts of every named value of the main graph and its subgraphs.
        notes: for the user.
    """

    visits: list[Visit] = field(default_factory=list)
    inputs: dict[str, Facts] = field(default_factory=dict)
    outputs: dict[str, Facts] = field(default_factory=dict)
    values: dict[str, Facts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def walk_model(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> Walk:
    """Visit every node with the shapes that follow from the inputs'.

    Args:
        model: unchanged.
        shapes: shape of inputs by name; they must agree with the dimensions the model fixes.

    Raises:
        ModelError: `shapes` names no input, or contradicts a fixed rank or dimension.
    """
    return _Walker(model, dict(shapes or {})).run()


class _Walker:
    def __init__(self, model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
        self.model = model
        self.shapes = shapes
        self.walk = Walk()
        self.symbols: dict[str, int] = {}
        self.executions = 1
        self.calls: list[ir.OperatorIdentifier] = []
        self.constants: dict[ir.Value, Facts] = {}
        self.imports: Mapping[str, int] = model.opset_imports

    def run(self) -> Walk:
        graph = self.model.graph
        named = {value.name: value for value in graph.inputs if value.name}
        for name in self.shapes:
            if name not in named:
                raise ModelError(f"no input is named {name!r}; the model's inputs are {', '.join(named)}")
        env: Env = {}
        for name, value in named.items():
            if value in graph.initializers.values() and name not in self.shapes:
                continue  # IR 3: a default; what runs unless the caller overrides it
            env[value] = self.walk.inputs[name] = self._input(name, value)
        self._nodes(graph, env, (), {})
        self.walk.outputs = {v.name or "": env.get(v) or self._fact(v, env, {}) for v in graph.outputs}
        self.walk.values |= {value.name: facts for value, facts in env.items() if value.name}
        return self.walk

    def _input(self, name: str, value: ir.Value) -> Facts:
        declared = declared_facts(value)
        wanted = self.shapes.get(name)
        if wanted is None:
            return declared
        if declared.shape is None:
            return Facts(name, declared.dtype, tuple(wanted))
        fits = len(declared.shape) == len(wanted) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(declared.shape, wanted, strict=True)
        )
        if not fits:
            fixed = ",".join("?" if dim is None else str(dim) for dim in declared.shape)
            raise ModelError(f"input {name!r} is {fixed}; the shape {','.join(map(str, wanted))} does not fit it")
        for dim, size in zip(declared.shape, wanted, strict=True):
            if isinstance(dim, str) and self.symbols.setdefault(dim, size) != size:
                raise ModelError(
                    f"dimension {dim!r} of input {name!r} is {size} here and {self.symbols[dim]} elsewhere"
                )
        return Facts(name, declared.dtype, tuple(wanted), other=declared.other)

    def _nodes(self, nodes: Iterable[ir.Node], env: Env, scope: tuple[str, ...], attributes: Attributes) -> None:
        for index, node in enumerate(nodes):
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                self._constant(node, env, attributes)
                continue
            resolved = {name: _resolve(attribute, attributes) for name, attribute in node.attributes.items()}
            visit = Visit(
                node,
                node_name(node, index),
                scope,
                {name: attribute for name, attribute in resolved.items() if attribute is not None},
                [None if value is None else self._fact(value, env, attributes) for value in node.inputs],
                self.imports.get(node.domain, 1),
                self.executions,
            )
            self.walk.visits.append(visit)
            self._visit(visit, env, attributes)
            for value, facts in zip(node.outputs, visit.outputs, strict=True):
                env[value] = facts

    def _visit(self, visit: Visit, env: Env, attributes: Attributes) -> None:
        op, domain = visit.node.op_type, visit.node.domain
        function = self.model.functions.get(visit.node.op_identifier())
        if function is not None and not is_native(visit):
            self._call(visit, function)
        elif domain == "" and op == "If":
            self._if(visit, env, attributes)
        elif domain == "" and op == "Loop":
            self._loop(visit, env, attributes)
        elif domain == "" and op == "Scan":
            self._scan(visit, env, attributes)
        else:
            self._plain(visit)

    def _plain(self, visit: Visit) -> None:
        try:
            visit.outputs = infer_outputs(visit)
        except Exception as error:  # onnx's own classes; the node may still be run by a library that knows it
            visit.outputs = [Facts(value.name or "") for value in visit.node.outputs]
            if visit.node.domain in ("", "ai.onnx", DOMAIN):
                self._note(f"{visit.name}: shapes cannot be inferred ({str(error).strip().splitlines()[-1][:160]})")
        for value, facts in zip(visit.node.outputs, visit.outputs, strict=True):
            self._complete(facts, value)
            facts.source = visit
        values = evaluate(visit)
        present = [facts for facts in visit.inputs if facts is not None]
        constant = bool(present) and all(facts.constant for facts in present)
        for index, facts in enumerate(visit.outputs):
            if values is not None and index < len(values):
                facts.data = values[index]
                facts.shape = values[index].shape
            if constant:
                facts.constant = True
                facts.roots = tuple(dict.fromkeys(root for source in present for root in source.roots))
        macs = 0 if constant else count_macs(visit)
        visit.macs = None if macs is None else macs * self.executions

    def _complete(self, facts: Facts, value: ir.Value) -> None:
        """Fill what inference left open from what the model declares."""
        declared = declared_facts(value)
        facts.dtype = facts.dtype or declared.dtype
        facts.other = facts.other or declared.other
        if declared.shape is None or self.calls or self.executions != 1:
            return
        known: Shape = tuple(self.symbols.get(dim, dim) if isinstance(dim, str) else dim for dim in declared.shape)
        if facts.shape is None:
            facts.shape = known
        elif len(known) == len(facts.shape):
            facts.shape = tuple(
                b if a is None or (isinstance(a, str) and isinstance(b, int)) else a
                for a, b in zip(facts.shape, known, strict=True)
            )

    def _call(self, visit: Visit, function: ir.Function) -> None:
        visit.container = True
        identifier = function.identifier()
        if identifier in self.calls or len(self.calls) >= FUNCTION_DEPTH:
            raise ModelError(f"function {identifier[0]}::{identifier[1]} calls itself, which ONNX forbids")
        env: Env = {}
        for index, value in enumerate(function.inputs):
            # An absent optional input is a value that nothing is known about.
            env[value] = visit.input(index) or Facts(value.name or "")
        given = {**{n: a for n, a in function.attributes.items() if a.value is not None}, **visit.attributes}
        outer, self.imports = self.imports, function.opset_imports
        self.calls.append(identifier)
        self._nodes(function, env, (*visit.scope, visit.name), given)
        self.calls.pop()
        self.imports = outer
        inner = [self._fact(value, env, given) for value in function.outputs]
        visit.outputs = inner[: len(visit.node.outputs)]
        visit.outputs += [Facts(value.name or "") for value in visit.node.outputs[len(inner) :]]

    def _if(self, visit: Visit, env: Env, attributes: Attributes) -> None:
        visit.container = True
        condition = visit.input(0)
        taken = None if condition is None or condition.data is None else bool(condition.data.reshape(-1)[0])
        branches: list[tuple[list[Visit], list[Facts]]] = []
        for name in ("then_branch", "else_branch"):
            start, notes = len(self.walk.visits), len(self.walk.notes)
            outputs = self._subgraph(visit, name, env, attributes, [])
            if taken is not None and taken != (name == "then_branch"):
                del self.walk.notes[notes:]  # shapes may well not fit a branch that is not taken
            branches.append((self.walk.visits[start:], outputs))
        if taken is None:
            then, other = (sum(v.macs or 0 for v in visits if v.counted) for visits, _ in branches)
            skipped = branches[0 if other > then else 1]
            if then or other:
                self._note(f"{visit.name}: which branch is taken is not known; the costlier one is counted")
            merged = [common(a, b) for a, b in zip(branches[0][1], branches[1][1], strict=True)]
        else:
            skipped, merged = branches[1 if taken else 0], branches[0 if taken else 1][1]
        for inner in skipped[0]:
            inner.counted = False
        self._finish(visit, merged)

    def _loop(self, visit: Visit, env: Env, attributes: Attributes) -> None:
        visit.container = True
        limit, condition = visit.input(0), visit.input(1)
        # Whether a Loop ends early is seen only at run time; its limit counts where it has one.
        trips = None if limit is None or limit.data is None else max(int(limit.data.reshape(-1)[0]), 0)
        if trips is None or trips > (1 << 31):
            self._note(f"{visit.name}: the number of iterations is not known; one is counted")
            trips = None
        carried = [facts for facts in visit.inputs[2:] if facts is not None]
        states = [Facts(facts.name, facts.dtype, facts.shape, other=facts.other) for facts in carried]
        first = [
            Facts("", ir.DataType.INT64, ()),
            Facts("", condition.dtype if condition else ir.DataType.BOOL, ()),
        ]
        outputs = self._repeated(visit, env, attributes, first, states, trips, 1)
        stacked = [
            Facts(f.name, f.dtype, None if f.shape is None else (trips, *f.shape)) for f in outputs[1 + len(states) :]
        ]
        self._finish(visit, [*outputs[1 : 1 + len(states)], *stacked])

    def _scan(self, visit: Visit, env: Env, attributes: Attributes) -> None:
        visit.container = True
        scanned = int(visit.attribute("num_scan_inputs", 0))
        sources = [facts or Facts("") for facts in visit.inputs]
        states = sources[: len(sources) - scanned]
        axes = visit.attribute("scan_input_axes", None) or [0] * scanned
        parts: list[Facts] = []
        trips: int | None = None
        for facts, axis in zip(sources[len(states) :], axes, strict=True):
            shape = facts.shape
            if shape is not None:
                axis %= len(shape)
                length = shape[axis]
                trips = length if isinstance(length, int) else trips
                shape = (*shape[:axis], *shape[axis + 1 :])
            parts.append(Facts(facts.name, facts.dtype, shape))
        if trips is None:
            self._note(f"{visit.name}: the number of iterations is not known; one is counted")
        states = [Facts(facts.name, facts.dtype, facts.shape) for facts in states]
        outputs = self._repeated(visit, env, attributes, [], states, trips, 0, parts)
        axes = visit.attribute("scan_output_axes", None) or [0] * (len(outputs) - len(states))
        stacked = [stack(facts, trips, axis) for facts, axis in zip(outputs[len(states) :], axes, strict=True)]
        self._finish(visit, [*outputs[: len(states)], *stacked])

    def _repeated(
        self,
        visit: Visit,
        env: Env,
        attributes: Attributes,
        first: list[Facts],
        states: list[Facts],
        trips: int | None,
        skip: int,
        last: Sequence[Facts] = (),
    ) -> list[Facts]:
        """Walk a body; again with open dimensions where a state does not keep its shape."""
        outer, self.executions = self.executions, self.executions * (1 if trips is None else trips)
        start = len(self.walk.visits)
        outputs = self._subgraph(visit, "body", env, attributes, [*first, *states, *last])
        ends = outputs[skip : skip + len(states)]
        if any(a.shape != b.shape for a, b in zip(states, ends, strict=True)):
            del self.walk.visits[start:]
            states = [common(a, b) for a, b in zip(states, ends, strict=True)]
            outputs = self._subgraph(visit, "body", env, attributes, [*first, *states, *last])
        self.executions = outer
        return outputs

    def _subgraph(
        self, visit: Visit, name: str, env: Env, attributes: Attributes, arguments: Sequence[Facts]
    ) -> list[Facts]:
        graph = visit.node.attributes[name].as_graph()
        for value, facts in zip(graph.inputs, arguments, strict=False):
            env[value] = facts
        scope = (
            *visit.scope,
            visit.name if name == "body" else f"{visit.name}.{name.removesuffix('_branch')}",
        )
        self._nodes(graph, env, scope, attributes)
        return [self._fact(value, env, attributes) for value in graph.outputs]

    def _finish(self, visit: Visit, inner: Sequence[Facts]) -> None:
        for index, value in enumerate(visit.node.outputs):
            source = inner[index] if index < len(inner) else Facts("")
            facts = Facts(value.name or "", source.dtype, source.shape, source.data, other=source.other, source=visit)
            self._complete(facts, value)
            visit.outputs.append(facts)

    def _fact(self, value: ir.Value, env: Env, attributes: Attributes) -> Facts:
        if value in env:
            return env[value]
        tensor = value.const_value
        if value.is_initializer() and tensor is not None:
            env[value] = self._tensor(value, tensor)
        else:
            env[value] = declared_facts(value)
        return env[value]

    def _constant(self, node: ir.Node, env: Env, attributes: Attributes) -> None:
        resolved = {name: _resolve(attribute, attributes) for name, attribute in node.attributes.items()}
        tensor = attribute_tensor({name: attribute for name, attribute in resolved.items() if attribute is not None})
        value = node.outputs[0]
        if tensor is None:
            env[value] = declared_facts(value)
            env[value].constant = True
        else:
            env[value] = self._tensor(value, tensor)

    def _tensor(self, value: ir.Value, tensor: ir.TensorProtocol) -> Facts:
        shape = tuple(tensor.shape.numpy())
        facts = Facts(value.name or "", tensor.dtype, shape, constant=True, roots=(value,))
        if tensor.size <= DATA_LIMIT and tensor.dtype != ir.DataType.STRING:
            try:
                facts.data = np.array(tensor.numpy())
            except ValueError as error:
                raise ModelError(f"tensor {value.name!r} does not hold what its shape says: {error}") from error
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()
        return facts

    def _note(self, text: str) -> None:
        if text not in self.walk.notes:
            self.walk.notes.append(text)


def node_name(node: ir.Node, index: int) -> str:
    """A node's name; where it has none, its operator and place in its graph."""
    return node.name or f"{node.op_type}_{index}"


def _resolve(attribute: ir.Attr, given: Attributes) -> ir.Attr | None:
    if not attribute.is_ref():
        return attribute
    source = given.get(attribute.ref_attr_name or "")
    return None if source is None else ir.Attr(attribute.name, source.type, source.value)
