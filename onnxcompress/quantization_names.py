"""Nodes by name: what `exclude` and `wide` mean."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from onnxcompress.errors import ModelError

CLOSE_NAMES = 5


def name_of(node: ir.Node) -> str:
    """What a node is called: its name, or, where it has none, that of its first output."""
    return node.name or node.outputs[0].name or ""


def matching(patterns: Sequence[str], nodes: Iterable[ir.Node], option: str) -> list[str]:
    """The names that patterns stand for, in the order of the nodes.

    A pattern is a name, or has `*` and `?` in it (fnmatch, case counts).

    Raises:
        ModelError: a pattern matches no node; the message lists names close to it.
    """
    names = [name for name in map(name_of, nodes) if name]
    known, found = set(names), set()
    for pattern in patterns:
        matched = {pattern} if pattern in known else set(fnmatch.filter(names, pattern))
        if not matched:
            raise ModelError(
                f"{option} {pattern!r} matches no node of the graph that is quantized; {_close(pattern, names)}"
            )
        found |= matched
    return [name for name in names if name in found]


def _close(pattern: str, names: Sequence[str]) -> str:
    bare = pattern.replace("*", "").replace("?", "")
    inside = [name for name in names if bare and bare.lower() in name.lower()]
    close = (inside or difflib.get_close_matches(bare, names, CLOSE_NAMES, cutoff=0.4))[:CLOSE_NAMES]
    return f"close to it: {', '.join(close)}" if close else f"it has, for one, {names[0]!r}" if names else "it is empty"
