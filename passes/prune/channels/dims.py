"""Axes as values: what an axis is made of, and which axes are one.

An axis of a tensor is a `Dim`. Two axes that must be cut alike are one Dim (union-find). Where a graph takes an
axis apart, its Dim is refined: into a product (Reshape of `heads * width` to `heads, width`; the groups of a
convolution) or a sum (Concat, Split, Slice of channels). What is refined no further is a leaf, and the positions
of a leaf are the units that can be cut: a position of a product goes when one of its factors' positions goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]

MISMATCH = "axes that are coupled are cut into pieces that do not fit each other"


class Dim:
    """One axis, or a part of one.

    Attributes:
        size: positions; None where it is not known before the model runs, and then it is never cut.
        kind: `leaf`, or how `parts` make it up; a product is row-major, its first part the outermost.
        reason: why a leaf must keep all its positions, or None.
    """

    __slots__ = ("kind", "parent", "parts", "reason", "size")

    def __init__(self, size: int | None = None, reason: str | None = None) -> None:
        self.size = size
        self.reason = reason
        self.parent: Dim | None = None
        self.kind: Literal["leaf", "product", "sum"] = "leaf"
        self.parts: tuple[Dim, ...] = ()


Kept = Mapping[Dim, Array]
"""Leaf -> bool array of its size: the positions that stay. A leaf that is not named keeps all."""


def root(dim: Dim) -> Dim:
    """The Dim that stands for this one and all that were unified with it."""
    while dim.parent is not None:
        if dim.parent.parent is not None:
            dim.parent = dim.parent.parent
        dim = dim.parent
    return dim


def leaves(dim: Dim) -> Iterator[Dim]:
    """The leaves of a Dim, outermost first; one that occurs twice comes twice."""
    dim = root(dim)
    if dim.kind == "leaf":
        yield dim
    for part in dim.parts:
        yield from leaves(part)


def factors(dim: Dim) -> list[Dim]:
    """The Dims whose product it is, none of them a product or of size 1."""
    dim = root(dim)
    if dim.kind != "product":
        return [] if dim.size == 1 else [dim]
    return [factor for part in dim.parts for factor in factors(part)]


def segments(dim: Dim) -> list[Dim]:
    """The Dims whose sum it is, none of them a sum or empty."""
    dim = root(dim)
    if dim.kind != "sum":
        return [] if dim.size == 0 else [dim]
    return [segment for part in dim.parts for segment in segments(part)]


def freeze(dim: Dim, reason: str) -> None:
    """Let every leaf keep all its positions; the first reason that is given stays."""
    for leaf in leaves(dim):
        if leaf.reason is None:
            leaf.reason = reason


def product(parts: Iterable[Dim]) -> Dim:
    """The Dim of an axis that runs over several, the first one slowest."""
    flat = [factor for part in parts for factor in factors(part)]
    if len(flat) == 1:
        return flat[0]
    sizes = [factor.size for factor in flat]
    dim = Dim(None if None in sizes else int(np.prod([s or 0 for s in sizes], dtype=np.int64)))
    if flat:
        dim.kind, dim.parts = "product", tuple(flat)
    return dim


def total(parts: Iterable[Dim]) -> Dim:
    """The Dim of an axis that holds several, one after the other."""
    flat = [segment for part in parts for segment in segments(part)]
    if len(flat) == 1:
        return flat[0]
    sizes = [segment.size for segment in flat]
    dim = Dim(None if None in sizes else sum(s or 0 for s in sizes))
    if flat:
        dim.kind, dim.parts = "sum", tuple(flat)
    return dim


def unify(a: Dim, b: Dim) -> None:
    """Make two axes one: of the same size at any run, position by position.

    Where they are refined in ways that do not fit each other, both keep all their positions.
    """
    a, b = root(a), root(b)
    if a is b:
        return
    if b.kind == "leaf" and (a.kind != "leaf" or b.size is None):
        a, b = b, a
    sizes_differ = a.size is not None and a.size != b.size
    if sizes_differ or (a.kind == "leaf" and b.kind != "leaf" and any(leaf is a for leaf in leaves(b))):
        _keep_both(a, b)
    elif a.kind == "leaf":
        a.parent = b
        if a.reason is not None:
            freeze(b, a.reason)
    elif _unify_composites(a, b):
        if root(a) is not root(b):
            root(a).parent = root(b)
    else:
        _keep_both(a, b)


def split(dim: Dim, at: int) -> tuple[Dim, Dim] | None:
    """The Dims of the positions before and from `at`; None where that cuts through what cannot be parted."""
    dim = root(dim)
    if dim.size is None or not 0 <= at <= dim.size:
        return None
    if at in (0, dim.size):
        return (Dim(0), dim) if at == 0 else (dim, Dim(0))
    if dim.kind == "leaf":
        head, tail = Dim(at, dim.reason), Dim(dim.size - at, dim.reason)
        dim.kind, dim.parts = "sum", (head, tail)
        return head, tail
    if dim.kind == "sum":
        return _split_sum(dim, at)
    first, *rest = factors(dim)
    if first.size is None or at % (dim.size // first.size):
        return None
    halves = split(first, at // (dim.size // first.size))
    return None if halves is None else (product([halves[0], *rest]), product([halves[1], *rest]))


def factor(dim: Dim, outer: int) -> tuple[Dim, Dim] | None:
    """The Dims whose product it is, the first of size `outer`; None where it is not made up like that."""
    dim = root(dim)
    if dim.size is None or outer < 1 or dim.size == 0 or dim.size % outer:
        return None
    if outer in (1, dim.size):
        return (Dim(1), dim) if outer == 1 else (dim, Dim(1))
    if dim.kind == "leaf":
        first, second = Dim(outer, dim.reason), Dim(dim.size // outer, dim.reason)
        dim.kind, dim.parts = "product", (first, second)
        return first, second
    if dim.kind == "sum":
        return _factor_sum(dim, dim.size // outer)
    taken: list[Dim] = []
    pending = deque(factors(dim))
    while outer > 1:
        head = pending.popleft()
        size = head.size or 0
        if outer % size == 0:
            taken.append(head)
            outer //= size
            continue
        parts = factor(head, outer) if size % outer == 0 else None
        if parts is None:
            return None
        taken.append(parts[0])
        pending.appendleft(parts[1])
        outer = 1
    return product(taken), product(pending)


def mask(dim: Dim, kept: Kept) -> Array:
    """Which positions of an axis of known size stay: bool [size]."""
    dim = root(dim)
    assert dim.size is not None, "an axis of unknown size is never cut"
    if dim.kind == "leaf":
        found = kept.get(dim)
        return np.ones(dim.size, bool) if found is None else found
    if dim.kind == "sum":
        return np.concatenate([mask(part, kept) for part in dim.parts])
    result = np.ones(1, bool)
    for part in dim.parts:
        result = np.logical_and.outer(result, mask(part, kept)).reshape(-1)
    return result


def kept_size(dim: Dim, kept: Kept) -> int:
    """How many positions of an axis of known size stay."""
    return int(mask(dim, kept).sum())


def share(dim: Dim, counts: Mapping[Dim, int]) -> float:
    """The share of an axis that is left when leaves have so many positions left; unknown sizes stay whole."""
    dim = root(dim)
    if dim.kind == "leaf":
        return counts[dim] / dim.size if dim.size and dim in counts else 1.0
    if dim.kind == "sum":
        if dim.size is None:
            return 1.0
        return sum(share(part, counts) * (root(part).size or 0) for part in dim.parts) / max(dim.size, 1)
    return float(np.prod([share(part, counts) for part in dim.parts]))


def units_of(dim: Dim, leaf: Dim) -> Array:
    """For each position of an axis the position of `leaf` that it belongs to, or -1: int64 [size].

    The leaf occurs at most once in a product.
    """
    dim = root(dim)
    assert dim.size is not None
    if dim.kind == "leaf":
        return np.arange(dim.size) if dim is leaf else np.full(dim.size, -1)
    if dim.kind == "sum":
        return np.concatenate([units_of(part, leaf) for part in dim.parts])
    result = np.full(1, -1)
    for part in dim.parts:
        result = np.maximum.outer(result, units_of(part, leaf)).reshape(-1)
    return result


def products(dim: Dim) -> Iterator[Dim]:
    """The products that it is made of, itself among them."""
    dim = root(dim)
    if dim.kind == "product":
        yield dim
    for part in dim.parts:
        yield from products(part)


def repeated_factors(dim: Dim) -> Iterator[Dim]:
    """Leaves that meet themselves in a product: cutting one position would cut a row and a column."""
    for found in products(dim):
        seen: set[Dim] = set()
        for part in factors(found):
            own = set(leaves(part))
            yield from own & seen
            seen |= own


def _keep_both(*dims: Dim) -> None:
    for dim in dims:
        freeze(dim, MISMATCH)


def _unify_composites(a: Dim, b: Dim) -> bool:
    if a.kind == b.kind == "product":
        return _unify_products(factors(a), factors(b))
    if a.kind == b.kind == "sum":
        return _unify_sums(a, b)
    if a.kind == "product":
        a, b = b, a
    outermost = factors(b)[0].size
    if outermost is not None and factor(a, outermost) is not None:
        return _unify_products(factors(a), factors(b))
    return _unify_sums(a, b)


def _unify_products(left: Sequence[Dim], right: Sequence[Dim]) -> bool:
    """Unify two products of the same size, factor by factor; a factor that spans several is taken apart."""
    a, b = deque(left), deque(right)
    while a and b:
        x, y = root(a[0]), root(b[0])
        for queue, dim in ((a, x), (b, y)):
            if dim.kind == "product":  # what came before took it apart
                queue.popleft()
                queue.extendleft(reversed(factors(dim)))
        if "product" in (x.kind, y.kind):
            continue
        if x is y or (x.size == y.size and (x.size is not None or len(a) == len(b) == 1)):
            unify(x, y)
            a.popleft()
            b.popleft()
            continue
        if x.size is None or y.size is None:
            return False
        (large, small, queue) = (x, y, a) if x.size > y.size else (y, x, b)
        assert small.size is not None
        if factor(large, small.size) is None:
            return False
        queue.popleft()
        queue.extendleft(reversed(factors(large)) if root(large).kind == "product" else _as_pair(large, small.size))
    return not a and not b


def _as_pair(dim: Dim, outer: int) -> list[Dim]:
    """The two factors of a sum that was factored, inner one first."""
    parts = factor(dim, outer)
    assert parts is not None
    return [parts[1], parts[0]]


def _unify_sums(left: Dim, right: Dim) -> bool:
    """Unify two axes segment by segment; a segment that spans several is taken apart."""
    a, b = deque(segments(left)), deque(segments(right))
    while a and b:
        x, y = a.popleft(), b.popleft()
        if x.size == y.size and x.size is not None:
            unify(x, y)
            continue
        if x.size is None or y.size is None:
            return False
        (large, small, queue) = (x, y, a) if x.size > y.size else (y, x, b)
        assert small.size is not None
        halves = split(large, small.size)
        if halves is None:
            return False
        unify(halves[0], small)
        queue.extendleft(reversed(segments(halves[1])))
    return not a and not b


def _split_sum(dim: Dim, at: int) -> tuple[Dim, Dim] | None:
    heads: list[Dim] = []
    pending = deque(segments(dim))
    while at > 0:
        segment = pending.popleft()
        size = segment.size or 0
        if size > at:
            halves = split(segment, at)
            if halves is None:
                return None
            heads.append(halves[0])
            pending.appendleft(halves[1])
            break
        heads.append(segment)
        at -= size
    return total(heads), total(pending)


def _factor_sum(dim: Dim, inner: int) -> tuple[Dim, Dim] | None:
    """A sum as `outer x inner`: every segment is, and they share the inner factor."""
    parts = segments(dim)
    if any(part.size is None or part.size % inner for part in parts):
        return None
    pairs = [factor(part, (part.size or 0) // inner) for part in parts]
    if any(pair is None for pair in pairs):
        return None
    found = [pair for pair in pairs if pair is not None]
    second = found[0][1]
    for pair in found[1:]:
        unify(second, pair[1])
    first = total(pair[0] for pair in found)
    return first, second
