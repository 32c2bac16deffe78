"""Rules and the pass that runs them: linear in the nodes, however often a rule fires."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxcompress.passes.simplify.editor import STANDARD_DOMAINS, Editor, all_nodes

MOST_VISITS = 64
"""Visits of one node after which it is left alone."""

MOST_REWRITES = 8
"""Rewrites for each node that the graph had: rules that undo each other's work come to an end."""


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Attributes:
        name: what a log calls it.
        op_types: standard ops that it starts from.
        find: looks at a node and changes nothing; what it gives (None: no match) goes to `rewrite`.
        rewrite: makes the change; False when it could not be made after all.
        since: the first opset whose ops it writes.
    """

    name: str
    op_types: tuple[str, ...]
    find: Callable[[ir.Node], Any]
    rewrite: Callable[[ir.Node, Any, Editor], bool | None]
    since: int = 0


def bypass(node: ir.Node, value: ir.Value, editor: Editor) -> bool:
    """The rewrite of all no-ops: the first output's readers read `value`."""
    return editor.replace(node.outputs[0], value)


class ApplyRules(ir.passes.InPlacePass):
    """Apply a table of rules, to the main graph and its subgraphs, until none fires.

    Every node is looked at once; after a rewrite only the nodes around it are looked at again.
    `applied` counts what fired. Functions are left alone: simplifying inlines them first.
    """

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        super().__init__()
        self.name = name
        self.rules = tuple(rules)
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.applied = Counter()
        editor = Editor(model)
        by_op: dict[str, list[Rule]] = {}
        for rule in self.rules:
            if editor.opset >= rule.since:
                for op_type in rule.op_types:
                    by_op.setdefault(op_type, []).append(rule)
        left = MOST_REWRITES * (1 + sum(1 for _ in all_nodes(model)))
        work = _Worklist(node for node in all_nodes(model) if node.op_type in by_op)
        while left > 0 and (node := work.next()) is not None:
            if node.domain not in STANDARD_DOMAINS:
                continue
            for rule in by_op.get(node.op_type, ()):
                found = rule.find(node)
                if found is None or rule.rewrite(node, found, editor) is False:
                    continue
                self.applied[rule.name] += 1
                left -= 1
                work.add(n for n in editor.take_touched() if n.op_type in by_op)
                break
        return ir.passes.PassResult(model, bool(self.applied))


class _Worklist:
    def __init__(self, nodes: Iterable[ir.Node]) -> None:
        self.queue = deque(nodes)
        self.queued = set(self.queue)
        self.visits: Counter[ir.Node] = Counter()

    def add(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            if node not in self.queued and self.visits[node] < MOST_VISITS:
                self.queued.add(node)
                self.queue.append(node)

    def next(self) -> ir.Node | None:
        """The next node that is still in a graph."""
        while self.queue:
            node = self.queue.popleft()
            self.queued.discard(node)
            if node.graph is not None:
                self.visits[node] += 1
                return node
        return None
