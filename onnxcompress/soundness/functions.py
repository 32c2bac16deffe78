"""Functions of a model: they must end, and must not grow beyond measure when they are inlined."""

from __future__ import annotations

import onnx

from onnxcompress.soundness.nodes import Body, subgraphs

MOST_NODES = 10_000_000
"""Nodes of a model with all functions inlined: ten functions that call the next ten times are more than that."""

Key = tuple[str, str, str]


def check_functions(proto: onnx.ModelProto) -> None:
    """Follow the calls from function to function.

    Raises:
        ValueError: a function is there twice, calls itself, or the model with all of them inlined is too large.
    """
    functions: dict[Key, onnx.FunctionProto] = {}
    for function in proto.functions:
        key = _key(function.domain, function.name, function.overload)
        if key in functions:
            raise ValueError(f"function {function.name!r} is there twice")
        functions[key] = function
    sizes: dict[Key, int] = {}
    for key in functions:
        _measure(key, functions, sizes)
    nodes, calls = _contents(proto.graph, functions)
    if nodes + sum(sizes[key] for key in calls) > MOST_NODES:
        raise ValueError(f"its functions, inlined, have more than {MOST_NODES:,} nodes")


def _measure(start: Key, functions: dict[Key, onnx.FunctionProto], sizes: dict[Key, int]) -> None:
    """Nodes of a function with all that it calls, by a walk without recursion: chains of calls may be long."""
    contents: dict[Key, tuple[int, list[Key]]] = {}
    path: list[Key] = [start]
    while path:
        key = path[-1]
        if key in sizes:
            path.pop()
            continue
        if key not in contents:
            contents[key] = _contents(functions[key], functions)
            waiting = [callee for callee in contents[key][1] if callee not in sizes]
            if any(callee in contents for callee in waiting):
                raise ValueError(f"function {functions[key].name!r} calls itself")
            path.extend(waiting)
            continue
        nodes, calls = contents[key]
        sizes[key] = min(MOST_NODES + 1, nodes + sum(sizes[callee] for callee in calls))
        path.pop()


def _contents(body: Body, functions: dict[Key, onnx.FunctionProto]) -> tuple[int, list[Key]]:
    """The nodes of a body, graphs within it included, and the functions that they call."""
    count, calls = 0, []
    waiting: list[Body] = [body]
    while waiting:
        for node in waiting.pop().node:
            count += 1
            waiting.extend(subgraphs(node))
            key = _key(node.domain, node.op_type, node.overload)
            if key in functions:
                calls.append(key)
    return count, calls


def _key(domain: str, name: str, overload: str) -> Key:
    return ("" if domain == "ai.onnx" else domain, name, overload)
