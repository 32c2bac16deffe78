"""Which units go: those that cost the least for what they save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.prune.channels.costs import Term, cost_terms, total_macs
from onnxcompress.passes.prune.channels.dims import Dim
from onnxcompress.passes.prune.channels.groups import Group, trace_groups

Array = np.ndarray[Any, Any]

TILE = 16
"""Channels that kernels take at a time."""


def choose_units(
    model: ir.Model,
    groups: Sequence[Group],
    scores: Mapping[str, Array],
    macs: float = 0.7,
    *,
    multiple: int | None = None,
    minimum: float = 0.1,
    normalize: bool = True,
    shapes: Mapping[str, Sequence[int]] | None = None,
    widths: bool = False,
) -> dict[str, tuple[int, ...]]:
    """The units to keep so that a model needs at most a share of its multiply-accumulates.

    Greedy, over all groups: the step with the least score for each multiply-accumulate saved is taken, until the
    share is reached. A step takes a group's least units down to the next multiple; what it saves is counted anew
    after each, for a layer between two groups shrinks with both.

    Args:
        model: the one that the groups were found in; is not changed.
        groups: those that may be cut.
        scores: group name -> what removing each unit costs (`unit_saliency`), not negative.
        macs: the share of multiply-accumulates to keep, over 0 to 1.
        multiple: counts are rounded down to it; None: `rounding`.
        minimum: share of each group that stays at least.
        normalize: scale scores so that an average unit of any group costs the same for each multiply-accumulate;
            False for scores that can be compared across the model (a change of loss).
        shapes: input name -> dimensions to count multiply-accumulates for.
        widths: as it was for `find_groups`.

    Returns:
        Group name -> units that stay, in order; groups that stay whole are not in it.

    Raises:
        ValueError: the share cannot be reached, a group is not the model's, or scores do not fit it.
    """
    if not 0 < macs <= 1:
        raise ValueError(f"the share of multiply-accumulates to keep lies over 0 and up to 1, not {macs}")
    traced = trace_groups(model, widths=widths)
    terms = cost_terms(model, traced.trace, shapes)
    counts: dict[Dim, int] = {}
    whole = total_macs(terms, counts)
    candidates: list[_Candidate] = []
    for group in groups:
        leaf = traced.leaf_of(group.name)
        step = multiple or rounding(group)
        candidate = _Candidate(group, leaf, _checked(group, scores), [t for t in terms if leaf in t.leaves()], step)
        candidate.least = max(1, int(np.ceil(minimum * group.size)), min(step, group.size))
        if normalize:
            candidate.normalize(whole)
        candidates.append(candidate)
    saved = 0.0
    while whole - saved > macs * whole * (1 + 1e-9):
        best = min((c for c in candidates if c.next is not None), key=lambda c: c.price(counts), default=None)
        if best is None or best.price(counts) == np.inf:
            left = 1 - saved / whole
            raise ValueError(
                f"cutting all that can be cut leaves {left:.1%} of the multiply-accumulates: ask for more than that"
            )
        saved += best.take(counts)
        for candidate in candidates:
            if candidate is best or candidate.neighbours & best.neighbours:
                candidate.forget_price()
    return {c.group.name: c.stays() for c in candidates if c.kept < c.group.size}


def rounding(group: Group) -> int:
    """The multiple that a group's size is rounded to: 1 for heads; else 16, as kernels tile channels, or the largest
    power of two up to a quarter of a smaller group."""
    if group.kind == "heads":
        return 1
    most = max(1, min(TILE, group.size // 4))
    return int(2 ** int(np.log2(most)))


@dataclass(eq=False)
class _Candidate:
    """A group on its way down."""

    group: Group
    leaf: Dim
    scores: Array
    terms: list[Term]
    step: int
    least: int = 1
    kept: int = field(init=False)
    neighbours: set[int] = field(init=False)
    _price: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.kept = self.group.size
        self.neighbours = {id(term) for term in self.terms}
        self._order = np.argsort(self.scores, kind="stable")

    @property
    def next(self) -> int | None:
        """The next smaller count, or None."""
        count = (self.kept - 1) // self.step * self.step
        return count if count >= self.least else None

    def normalize(self, whole: float) -> None:
        """Let an average unit cost what it saves, as a share of the model's whole cost."""
        total = float(self.scores.sum())
        own = sum(term.macs for term in self.terms)
        self.scores = self.scores * (own / whole / total) if total > 0 and whole > 0 else self.scores

    def price(self, counts: dict[Dim, int]) -> float:
        """Score lost for each multiply-accumulate saved by the next step."""
        if self._price is None:
            count = self.next
            assert count is not None
            saving = self._saving(counts, count)
            lost = float(self.scores[self._order[self.group.size - self.kept : self.group.size - count]].sum())
            self._price = lost / saving if saving > 0 else float("inf")
        return self._price

    def take(self, counts: dict[Dim, int]) -> float:
        """Go down one step; gives the multiply-accumulates saved."""
        count = self.next
        assert count is not None
        saving = self._saving(counts, count)
        self.kept = counts[self.leaf] = count
        return saving

    def forget_price(self) -> None:
        self._price = None

    def stays(self) -> tuple[int, ...]:
        return tuple(sorted(self._order[self.group.size - self.kept :].tolist()))

    def _saving(self, counts: dict[Dim, int], count: int) -> float:
        return total_macs(self.terms, counts) - total_macs(self.terms, {**counts, self.leaf: count})


def _checked(group: Group, scores: Mapping[str, Array]) -> Array:
    if group.name not in scores:
        raise ValueError(f"group {group.name!r} has no scores")
    array = np.asarray(scores[group.name], np.float64)
    if array.shape != (group.size,) or not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"the scores of group {group.name!r} must be {group.size} finite numbers, none negative")
    return array
