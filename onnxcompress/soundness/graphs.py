"""Values of a graph: each is given once, and nothing is read that is never given or that waits for itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import onnx

from onnxcompress.soundness.nodes import Body, subgraphs

Names = set[str]


def check_graph(body: Body) -> bool:
    """Check the values of a main graph or of a function's body, and of the graphs within.

    Returns:
        whether nodes come after what they read, everywhere.

    Raises:
        ValueError: a value is given twice, is read and never given, or depends on itself.
    """
    ordered, _ = _check(body, ())
    return ordered


def _check(body: Body, outer: Sequence[Names]) -> tuple[bool, Names]:
    """Whether the graph is ordered, and the names that it reads from outside itself."""
    given = _given(body)
    produced: Names = set()
    for node in body.node:
        for name in filter(None, node.output):
            if name in given or name in produced:
                raise ValueError(f"value {name!r} is given twice")
            produced.add(name)
    scopes = (*outer, given | produced)
    ordered, done, free = True, set(given), set()
    reads: list[Names] = []
    for node in body.node:
        names = set(filter(None, node.input))
        for graph in subgraphs(node):
            inner, from_outside = _check(graph, scopes)
            ordered &= inner
            names |= from_outside
        for name in names:
            if name in done:
                continue
            if name in produced:
                ordered = False
            elif any(name in scope for scope in outer):
                free.add(name)
            else:
                raise ValueError(f"node {_called(node)} reads {name!r}, which nothing gives")
        reads.append(names)
        done.update(filter(None, node.output))
    for name in _outputs(body):
        if not any(name in scope for scope in scopes):
            raise ValueError(f"the output {name!r} is given by nothing")
        if name not in given and name not in produced:
            free.add(name)
    if not ordered:
        _check_ends(body.node, reads)
    return ordered, free


def _given(body: Body) -> Names:
    """Names that a graph has before any node runs: an initializer may be the default of an input."""
    if isinstance(body, onnx.FunctionProto):
        return set(body.input)
    inputs = _once((value.name for value in body.input), "input")
    initializers = _once((tensor.name for tensor in body.initializer), "initializer")
    sparse = _once((tensor.values.name for tensor in body.sparse_initializer), "initializer")
    if initializers & sparse:
        raise ValueError(f"initializer {min(initializers & sparse)!r} is given twice")
    return inputs | initializers | sparse


def _outputs(body: Body) -> Iterator[str]:
    if isinstance(body, onnx.FunctionProto):
        yield from body.output
    else:
        yield from (value.name for value in body.output)


def _once(names: Iterable[str], kind: str) -> Names:
    found: Names = set()
    for name in names:
        if name in found:
            raise ValueError(f"{kind} {name!r} is given twice")
        if not name:
            raise ValueError(f"an {kind} has no name")
        found.add(name)
    return found


def _check_ends(nodes: Sequence[onnx.NodeProto], reads: Sequence[Names]) -> None:
    """Raise if the nodes cannot be brought into an order (Kahn)."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    readers: dict[int, list[int]] = defaultdict(list)
    waits = [0] * len(nodes)
    for index, names in enumerate(reads):
        for source in {producer[name] for name in names if name in producer}:
            readers[source].append(index)
            waits[index] += 1
    ready = [index for index, count in enumerate(waits) if count == 0]
    done = 0
    while ready:
        done += 1
        for reader in readers[ready.pop()]:
            waits[reader] -= 1
            if waits[reader] == 0:
                ready.append(reader)
    if done < len(nodes):
        stuck = next(node for node, count in zip(nodes, waits, strict=True) if count)
        raise ValueError(f"the graph has a cycle: node {_called(stuck)} waits for itself")


def _called(node: onnx.NodeProto) -> str:
    return repr(node.name) if node.name else f"({node.op_type})"
