"""Groups of coupled channels: what can be cut, what it takes along, and what cannot be cut and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, freeze, leaves, products, repeated_factors, root, units_of
from onnxcompress.passes.prune.channels.fixes import Count
from onnxcompress.passes.prune.channels.operators import OPERATORS
from onnxcompress.passes.prune.channels.trace import Role, Trace, Use
from onnxcompress.passes.prune.layers import Refusal, name_of

Array = np.ndarray[Any, Any]

Kind = Literal["channels", "neurons", "heads"]

_Place = tuple[Use, int]
"""A constant as a node reads it, and one of its axes."""

HEAD_WIDTH = "the width of an attention head is kept: heads are cut whole"

MAKERS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "Gather")
"""Operators whose constant gives its result new channels."""


@dataclass(frozen=True)
class Member:
    """An axis of a constant that a group runs along.

    Attributes:
        node, op: the node that reads the constant.
        initializer: the constant.
        axis: of the constant.
        role: whether its positions make the units, read them, or follow them.
        units: for each position of the axis the unit that it belongs to, or -1.
    """

    node: str
    op: str
    initializer: str
    axis: int
    role: Role
    units: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Units that are cut together everywhere, or not at all.

    Attributes:
        name: of the node that makes its units first; `name#2` and so on where one node makes several groups.
        kind: channels of convolutions, neurons of linear layers, attention heads.
        size: number of units.
        unit: channels that one unit has where it is made: the width of a head; 1 else, mostly.
        members: every axis of every constant that it runs along, in graph order.
    """

    name: str
    kind: Kind
    size: int
    unit: int
    members: tuple[Member, ...]

    def __str__(self) -> str:
        wide = f" of {self.unit} channels" if self.unit > 1 else ""
        parts = [f"{self.name}: {self.size} {self.kind}{wide}"]
        roles: tuple[tuple[str, Role], ...] = (("made by", "makes"), ("read by", "reads"), ("along with", "follows"))
        told: set[str] = set()
        for words, role in roles:
            # Its own bias is no news about a layer.
            nodes = [m.node for m in self.members if m.role == role and not (role == "follows" and m.node in told)]
            if nodes:
                parts.append(f"{words} {_named(nodes)}")
            told.update(nodes)
        return "; ".join(parts)


def find_groups(model: ir.Model, *, widths: bool = False) -> tuple[list[Group], list[Refusal]]:
    """The groups of coupled channels of a model's main graph, and the layers whose channels cannot be cut.

    A group is left out where its channels reach an input or output of the model, a node that is not followed, or
    arithmetic on their number. The width of an attention head is kept: heads are cut whole.

    Args:
        model: is not changed.
        widths: offer channels that LayerNormalization takes its statistics over, or that are looked up in an
            embedding table, too. A cut then changes those statistics: they are taken over the channels that stay.

    Returns:
        Groups and refusals in graph order. A refusal names the first node that makes the channels.
    """
    traced = trace_groups(model, widths=widths)
    return [group for group, _ in traced.groups], traced.refused


@dataclass(frozen=True)
class Traced:
    """A model's axes, with its groups and the leaf that each of them cuts."""

    trace: Trace
    groups: list[tuple[Group, Dim]]
    refused: list[Refusal]

    def leaf_of(self, name: str) -> Dim:
        """The leaf of a group, by its name.

        Raises:
            ValueError: the model has no such group.
        """
        for group, leaf in self.groups:
            if group.name == name:
                return leaf
        raise ValueError(f"the model has no group {name!r} that can be cut")


def trace_groups(model: ir.Model, *, widths: bool = False) -> Traced:
    """`find_groups`, with the axes behind it."""
    trace = Trace(model, OPERATORS, widths=widths)
    uses = list(trace.uses())
    heads = _heads(trace, uses)
    along: dict[Dim, list[_Place]] = {}
    for use in uses:
        for axis, dim in enumerate(use.axes):
            for leaf in repeated_factors(dim):
                freeze(leaf, "an axis holds its pairs: cutting one position would cut a row and a column")
            for leaf in dict.fromkeys(leaves(dim)):
                along.setdefault(leaf, []).append((use, axis))
    groups: list[tuple[Group, Dim]] = []
    refused: list[Refusal] = []
    names: Counter[str] = Counter()
    order = {node: i for i, node in enumerate(model.graph)}
    for leaf, places in sorted(along.items(), key=lambda item: _rank(order, trace, *item)):
        makers = [use for use, axis in places if _role(trace, use, axis, leaf) == "makes"]
        if leaf.size is None or leaf.size < 2 or not makers or leaf.reason == HEAD_WIDTH:
            continue
        name = name_of(makers[0].node)
        if leaf.reason is not None:
            refused.append(_refusal(leaf, makers))
            continue
        names[name] += 1
        name = name if names[name] == 1 else f"{name}#{names[name]}"
        groups.append((_group(name, trace, leaf, places, leaf in heads), leaf))
    return Traced(trace, groups, refused)


def unit_saliency(group: Group, saliency: Mapping[str, Array]) -> Array:
    """What removing each unit costs: the saliency of the weights that make it and of those that read it.

    Args:
        saliency: initializer name -> array of its shape. Members that it does not name count nothing; an
            initializer that two nodes read counts once.

    Returns:
        float64 [size].

    Raises:
        ValueError: an array has not its initializer's shape.
    """
    scores = np.zeros(group.size)
    seen: set[tuple[str, int]] = set()
    for member in group.members:
        if member.initializer not in saliency or (member.initializer, member.axis) in seen:
            continue
        seen.add((member.initializer, member.axis))
        array = np.asarray(saliency[member.initializer], np.float64)
        if array.ndim <= member.axis or array.shape[member.axis] != len(member.units):
            raise ValueError(f"the saliency of {member.initializer!r} has shape {list(array.shape)}, not its own")
        units = np.array(member.units)
        each = array.sum(axis=tuple(i for i in range(array.ndim) if i != member.axis))
        np.add.at(scores, units[units >= 0], each[units >= 0])
    return scores


def explain(
    groups: Sequence[Group], refused: Sequence[Refusal], keep: Mapping[str, Sequence[int]] | None = None
) -> list[str]:
    """One line a group (with how many units stay, where `keep` says), and one a refusal."""
    lines = []
    for group in groups:
        kept = group.size if keep is None else len(keep.get(group.name, range(group.size)))
        cut = f" [keeps {kept} of {group.size}]" if kept < group.size else " [all stay]" if keep is not None else ""
        lines.append(f"{group}{cut}")
    lines.extend(f"{refusal.name} ({refusal.op}): {refusal.reason}" for refusal in refused)
    return lines


def _heads(trace: Trace, uses: Sequence[Use]) -> set[Dim]:
    """Leaves that run over attention heads; what a product holds besides them, the width of a head, is kept."""
    heads = {leaf for dim in trace.heads for leaf in leaves(dim)}
    for dim in (part for use in uses for axis in use.axes for part in products(axis)):
        own = set(leaves(dim))
        if own & heads:
            for leaf in own - heads:
                freeze(leaf, HEAD_WIDTH)
    return heads


def _group(name: str, trace: Trace, leaf: Dim, places: Sequence[_Place], heads: bool) -> Group:
    members = tuple(
        Member(
            name_of(use.node), use.node.op_type, use.value.name or "", axis, _role(trace, use, axis, leaf),
            tuple(units_of(use.axes[axis], leaf).tolist()),
        )
        for use, axis in places
    )  # fmt: skip
    made = next(member for member in members if member.role == "makes")
    unit = sum(position == 0 for position in made.units)
    assert leaf.size is not None
    kind = "heads" if heads else _kind(member.op for member in members if member.role == "makes")
    return Group(name, kind, leaf.size, unit, members)


def _kind(makers: Iterable[str]) -> Kind:
    return "channels" if any(op in ("Conv", "ConvTranspose") for op in makers) else "neurons"


def _refusal(leaf: Dim, makers: Sequence[Use]) -> Refusal:
    first = makers[0].node
    reason = f"its {leaf.size} {_kind(use.node.op_type for use in makers)} stay: {leaf.reason}"
    others = _named(name_of(use.node) for use in makers[1:])
    return Refusal(name_of(first), first.op_type, f"{reason} (with {others})" if others else reason)


def _role(trace: Trace, use: Use, axis: int, leaf: Dim) -> Role:
    """The groups of a convolution follow: they are channels of its input and its output both."""
    fix = trace.shape_fixes.get(use.node)
    if isinstance(fix, Count) and use.index == 1 and any(root(leaf) is part for part in leaves(fix.groups)):
        return "follows"
    role = use.roles.get(axis, "follows")
    return role if use.node.op_type in MAKERS else "follows"


def _rank(order: Mapping[ir.Node, int], trace: Trace, leaf: Dim, places: Sequence[_Place]) -> tuple[int, int, int]:
    """By the first node that makes the units, and where in its axis they begin."""
    for use, axis in places:
        if _role(trace, use, axis, leaf) == "makes":
            units = units_of(use.axes[axis], leaf)
            return order[use.node], use.index, int(np.argmax(units >= 0))
    return len(order), 0, 0


def _named(names: Iterable[str], most: int = 4) -> str:
    """Names in order, each once; the rest counted."""
    distinct = list(dict.fromkeys(names))
    shown = ", ".join(distinct[:most])
    return shown if len(distinct) <= most else f"{shown} and {len(distinct) - most} more"
