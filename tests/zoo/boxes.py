"""Scoring detectors: boxes from a mask, and the F1 score of found against drawn boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of every box of `a` `[n, 4]` with every box of `b` `[m, 4]`: `[n, m]`.

    Boxes are left, top, right, bottom.
    """
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    size = np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - corner, 0, None)
    shared = size.prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9)  # type: ignore[no-any-return]


def f1_score(found: Sequence[Array], drawn: Sequence[Array], least_overlap: float = 0.5) -> float:
    """F1 over pictures, in percent; a found box counts once, for the drawn box it overlaps most."""
    right = 0
    for boxes, truth in zip(found, drawn, strict=True):
        table = overlaps(boxes.reshape(-1, 4), truth.reshape(-1, 4))
        while table.size and table.max() >= least_overlap:
            i, j = np.unravel_index(table.argmax(), table.shape)
            right += 1
            table[i, :] = table[:, j] = 0
    total = sum(map(len, found)) + sum(map(len, drawn))
    return 100 * 2 * right / total if total else 0.0


def suppressed(boxes: Array, scores: Array, most_overlap: float) -> Array:
    """Non-maximum suppression: indices of the boxes kept, best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlaps(boxes[[best]], boxes[order])[0] <= most_overlap]
    return np.array(kept, np.int64)


def regions(mask: Array) -> Array:
    """Bounding boxes `[n, 4]` of the 4-connected regions of a boolean mask `[height, width]`.

    Runs of each row are joined with the runs of the row above that they touch (union-find).
    """
    parents: list[int] = []
    boxes: list[list[int]] = []

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        here = []
        for start, stop in edges.reshape(-1, 2).tolist():
            label = len(parents)
            parents.append(label)
            boxes.append([start, y, stop, y + 1])
            here.append((start, stop, label))
            for a, b, other in above:
                if a < stop and start < b:
                    _merge(parents, boxes, root(other), root(label))
        above = here
    return np.array([boxes[i] for i, parent in enumerate(parents) if i == parent], np.float64).reshape(-1, 4)


def _merge(parents: list[int], boxes: list[list[int]], a: int, b: int) -> None:
    if a == b:
        return
    parents[b] = a
    old, new = boxes[a], boxes[b]
    boxes[a] = [min(old[0], new[0]), min(old[1], new[1]), max(old[2], new[2]), max(old[3], new[3])]
