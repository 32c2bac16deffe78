"""Changing graphs safely: unique names, no dead nodes left behind, graph inputs and outputs kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]

STANDARD_DOMAINS = ("", "ai.onnx")
SHARED_CONSTANT_BYTES = 1024

MOST_READERS = 64
"""Of a value with more readers (a constant that a whole graph shares) they are not touched when one comes or goes:
time would grow with the square of the graph, and no rule waits for one reader of so many."""


class Editor:
    """Edits one model's graphs (main graph and subgraphs) and remembers what it touched.

    A change costs time in what it changes, never in the size of the graph: names are collected once, dead
    nodes are followed upwards from the node that died, and nodes whose surroundings changed are handed out
    by `take_touched`, so that a pass can look at them again instead of scanning the graph.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.changes = 0
        self.opset = model.graph.opset_imports.get("", 0)
        self._values: Counter[str] = Counter()
        self._nodes: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._constants: dict[tuple[object, ...], ir.Value] = {}
        self._touched: dict[ir.Node, None] = {}
        for graph in all_graphs(model):
            self._values.update(v.name for v in graph.inputs if v.name)
            self._values.update(list(graph.initializers))
        for node in all_nodes(model):
            for output in node.outputs:
                if output.name:
                    self._values[output.name] += 1
            if node.name:
                self._nodes.add(node.name)

    def fresh(self, stem: str) -> str:
        """A name that nothing in the model has."""
        name = stem
        while not name or name in self._values or name in self._nodes:
            self._numbers[stem] = number = self._numbers.get(stem, 0) + 1
            name = f"{stem}_{number}"
        self._values[name] += 1
        return name

    def constant(self, data: Array | ir.TensorProtocol, stem: str = "constant") -> ir.Value:
        """An initializer of the main graph; small equal ones are one."""
        tensor = ir.Tensor(np.ascontiguousarray(data)) if isinstance(data, np.ndarray) else data
        if isinstance(data, np.ndarray) and data.ndim == 0:
            tensor = ir.Tensor(data)  # ascontiguousarray gives at least one axis
        key: tuple[object, ...] | None = None
        if isinstance(tensor, ir.Tensor) and tensor.nbytes <= SHARED_CONSTANT_BYTES:
            key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
            known = self._constants.get(key)
            if known is not None and known.is_initializer():
                return known
        value = ir.Value(
            name=self.fresh(stem),
            shape=shape_of(tensor),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.model.graph.register_initializer(value)
        if key is not None:
            self._constants[key] = value
        return value

    def put_constant(self, old: ir.Value, data: Array | ir.TensorProtocol) -> bool:
        """Let a constant take a value's place, and its name; False for a graph output, which a node must make."""
        if old.is_graph_output():
            return False
        name = old.name
        if name and self._values[name] == 1:  # two branches of an If may use one name
            old.name = self.fresh(f"{name}_replaced")
            del self._values[name]
            self._nodes.discard(name)
        return self.replace(old, self.constant(data, name or "constant"))

    def insert(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        *,
        before: ir.Node,
        like: ir.Value | None = None,
        outputs: int = 1,
        domain: str = "",
        stem: str | None = None,
    ) -> ir.Node:
        """A new node in front of `before`.

        Args:
            like: its first output gets this value's type and shape.
            stem: what names derive from; the name of `like`, or of `before`, else.
        """
        stem = stem or (like.name if like is not None else None) or before.name or op_type
        node = ir.node(op_type, list(inputs), attributes or {}, domain=domain, num_outputs=outputs)
        node.name = self.fresh(f"{stem}/{op_type}")
        for output in node.outputs:
            output.name = self.fresh(f"{stem}/{op_type}_out")
        if like is not None:
            node.outputs[0].type = like.type
            node.outputs[0].shape = None if like.shape is None else like.shape.copy()
        node.metadata_props.update(before.metadata_props)
        assert before.graph is not None
        before.graph.insert_before(before, node)
        self.touch(node)
        self.changes += 1
        return node

    def can_replace(self, old: ir.Value, new: ir.Value) -> bool:
        """Whether `replace` may put `new` in the place of `old`.

        A graph output keeps its name, so its replacement must be a node's output in the same graph that is
        not itself an output.
        """
        if old is new:
            return False
        if not old.is_graph_output():
            return True
        producer = new.producer()
        return producer is not None and not new.is_graph_output() and producer.graph is old.graph

    def replace(self, old: ir.Value, new: ir.Value) -> bool:
        """Let everything that reads `old` read `new`; the node that made `old` goes when nothing needs it."""
        if not self.can_replace(old, new):
            return False
        if old.is_graph_output():
            graph = old.graph
            assert graph is not None
            name, kept = old.name, old
            for i, output in enumerate(graph.outputs):
                if output is old:
                    graph.outputs[i] = new
            old.name = self.fresh(f"{name}_replaced")
            new.name = name
            new.type, new.shape = kept.type or new.type, kept.shape if kept.shape is not None else new.shape
            new.metadata_props.update(kept.metadata_props)
        for node, index in old.uses():
            node.replace_input_with(index, new)
            self.touch(node)
        self.touch(new.producer())
        self._touch_readers(new)
        self.changes += 1
        self.collect(old.producer())
        return True

    def supersede(self, old: ir.Value, new: ir.Value) -> bool:
        """`replace`, where `new` was changed so that it now holds what `old` did: it takes the name of `old` too.

        Its own name stood for another value, with which `diff` and the user would compare it.
        """
        name, keeps_name = old.name, old.is_graph_output()
        if not self.replace(old, new):
            return False
        if name and not keeps_name:
            old.name = self.fresh(f"{name}_replaced")
            new.name = name if self._values[name] == 1 else self.fresh(name)  # two branches of an If may use one name
        return True

    def set_input(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Change one input (the list grows as needed); what is dead after it goes."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        if old is value:
            return
        node.replace_input_with(index, value)
        self.touch(node)
        self.changes += 1
        if old is not None:
            self._released(old)

    def set_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Set an attribute, or remove it with None."""
        if value is None:
            node.attributes.pop(name, None)
        else:
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
        self.touch(node)
        self.changes += 1

    def collect(self, node: ir.Node | None) -> bool:
        """Remove a node when nothing reads its outputs, and then what only it needed."""
        if node is None or node.graph is None:
            return False
        if any(output.is_graph_output() or output.uses() for output in node.outputs):
            return False
        pending = [node]
        while pending:
            dead = pending.pop()
            if dead.graph is None or any(o.is_graph_output() or o.uses() for o in dead.outputs):
                continue
            inputs = _detach(dead)
            dead.graph.remove(dead)
            self._touched.pop(dead, None)
            self.changes += 1
            for value in inputs:
                self._released(value, pending)
        return True

    def _released(self, value: ir.Value, pending: list[ir.Node] | None = None) -> None:
        producer = value.producer()
        self._touch_readers(value)
        if value.uses() or value.is_graph_output():
            self.touch(producer)
        elif producer is not None:
            if pending is None:
                self.collect(producer)
            else:
                pending.append(producer)
        elif value.is_initializer() and not value.is_graph_input():
            assert value.graph is not None and value.name is not None
            value.graph.initializers.pop(value.name)

    def touch(self, node: ir.Node | None) -> None:
        if node is not None:
            self._touched[node] = None

    def _touch_readers(self, value: ir.Value) -> None:
        """Rules ask who else reads a value: its readers may match now."""
        uses = value.uses()
        if len(uses) <= MOST_READERS:
            for user, _ in uses:
                self.touch(user)

    def take_touched(self) -> list[ir.Node]:
        """Nodes whose inputs, attributes or readers changed since the last call."""
        nodes = [node for node in self._touched if node.graph is not None]
        self._touched.clear()
        return nodes


def _detach(node: ir.Node) -> list[ir.Value]:
    """Drop a node's inputs, those read inside its subgraphs too; gives the values it no longer reads."""
    values: list[ir.Value] = []
    for inner in (node, *nodes_within(node)):
        for i, value in enumerate(inner.inputs):
            if value is not None:
                inner.replace_input_with(i, None)
                values.append(value)
    return values


def nodes_within(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of a node's subgraphs, however deep."""
    if may_hold_graphs(node):
        for graph in subgraphs(node):
            yield from _walk(graph)


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """A node's own subgraphs (the branches of If, the bodies of Loop and Scan)."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the main graph and its subgraphs, in order; functions apart."""
    return _walk(model.graph)


def all_graphs(model: ir.Model) -> list[ir.Graph]:
    """The main graph and its subgraphs; functions apart."""
    graphs = [model.graph]
    for node in all_nodes(model):
        if may_hold_graphs(node):
            graphs.extend(subgraphs(node))
    return graphs


def _walk(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        if node.graph is not None and may_hold_graphs(node):
            for inner in subgraphs(node):
                yield from _walk(inner)


CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap"))


def may_hold_graphs(node: ir.Node) -> bool:
    """Cheaper than looking at every attribute: of the standard ops only control flow has subgraphs."""
    return node.op_type in CONTROL_FLOW or node.domain not in STANDARD_DOMAINS


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether it is a standard op of one of these types."""
    return node is not None and node.op_type in op_types and node.domain in STANDARD_DOMAINS


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard node of one of these types that makes a value, or None."""
    node = None if value is None else value.producer()
    return node if is_op(node, *op_types) else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value once, when it is no graph output; else None."""
    if value.is_graph_output():
        return None
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's value, or the default; lists as tuples."""
    found = node.attributes.get(name)
    if found is None or found.is_ref():
        return default
    value = found.value
    return tuple(value) if isinstance(value, list) else value


def dims_of(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """A tensor's dimensions as plain numbers."""
    return tuple(tensor.shape.numpy())


def shape_of(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape(dims_of(tensor))


def tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant a value holds for certain: an initializer that no graph input overrides, or None."""
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if is_op(node, "Constant"):
        assert node is not None
        found = node.attributes.get("value")
        return found.as_tensor() if found is not None and not found.is_ref() else None
    return None


def array_of(value: ir.Value | None, *, limit: int = 1 << 20) -> Array | None:
    """A constant as an array, when it is one of at most `limit` bytes."""
    tensor = tensor_of(value)
    if tensor is None or tensor.nbytes > limit:
        return None
    return tensor.numpy()


def scalar_of(value: ir.Value | None) -> float | None:
    """A numeric constant of one element, as a float."""
    array = array_of(value, limit=16)
    if array is None or array.size != 1 or (array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16"):
        return None
    return float(array.reshape(()).item())


def ints_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A constant integer tensor of rank 0 or 1, as a tuple."""
    array = array_of(value)
    if array is None or array.dtype.kind not in "iu" or array.ndim > 1:
        return None
    return tuple(int(v) for v in array.reshape(-1))


def rank_of(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape when every dimension is known."""
    if value is None or value.shape is None or not all(isinstance(d, int) for d in value.shape):
        return None
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]
