"""How far outputs are from the original's, summed over many feeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcompress.data import Array


@dataclass
class Difference:
    """Of one output, over all feeds added.

    The error of floats is root mean square of the difference / root mean square of the original's output, both over
    all elements of all feeds; that of integers, booleans and strings the share of elements that differ. Where the
    original's outputs are small in these feeds, as they may be when all inputs are zero, the root mean square that
    they have in clean feeds takes its place: what is small beside that does no harm. A feed for which the shapes
    differ, counts as wholly different.

    Attributes:
        feeds: added so far.
        other_shapes: feeds for which the shape or the type is another one.
        not_finite: feeds for which elements are not finite where the original's are; the error is infinite then.
    """

    feeds: int = 0
    other_shapes: int = 0
    not_finite: int = 0
    _noise: float = 0.0
    _power: float = 0.0
    _count: int = 0
    _differing: int = 0
    _discrete: int = 0

    def add(self, wanted: Array, found: Array) -> None:
        """Take the outputs for the next feed into account."""
        self.feeds += 1
        if wanted.shape != found.shape or wanted.dtype.kind != found.dtype.kind:
            self.other_shapes += 1
        elif wanted.dtype.kind != "f":
            self._discrete += wanted.size
            self._differing += int(np.count_nonzero(wanted != found))
        else:
            finite = np.isfinite(wanted)
            a, b = wanted[finite].astype(np.float64), found[finite].astype(np.float64)
            if not np.isfinite(b).all():
                self.not_finite += 1
                return
            with np.errstate(over="ignore"):
                self._noise += float(np.sum((a - b) ** 2))
                self._power += float(np.sum(a**2))
            self._count += a.size

    @property
    def level(self) -> float:
        """Root mean square of the original's finite elements."""
        return math.sqrt(self._power / self._count) if self._count else 0.0

    def error(self, level: float = 0.0) -> float:
        """The error, 0 for equal outputs; `level` is the root mean square of the original's output in clean feeds."""
        if self.not_finite:
            return math.inf
        share = self.other_shapes / self.feeds if self.feeds else 0.0
        if self._discrete:
            return max(share, self._differing / self._discrete)
        if not self._noise:
            return share
        noise = math.sqrt(self._noise / self._count)
        return max(share, noise / (max(self.level, level) or 1.0))

    def told(self) -> str:
        """What is wrong beyond a number; empty where nothing is."""
        if self.not_finite:
            return f"not finite where the original is, on {self.not_finite} of {self.feeds} feeds"
        if self.other_shapes:
            return f"another shape or type than the original's on {self.other_shapes} of {self.feeds} feeds"
        return ""


class Differences:
    """Of all outputs; see `Difference`."""

    def __init__(self, outputs: Sequence[str]) -> None:
        self.outputs = {name: Difference() for name in outputs}

    def add(self, wanted: Sequence[Array], found: Sequence[Array]) -> None:
        """Take the outputs for the next feed into account."""
        for difference, a, b in zip(self.outputs.values(), wanted, found, strict=True):
            difference.add(np.asarray(a), np.asarray(b))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.outputs)

    @property
    def levels(self) -> dict[str, float]:
        return {name: difference.level for name, difference in self.outputs.items()}

    def errors(self, levels: Mapping[str, float]) -> dict[str, float]:
        """By output; `levels` are those of the clean feeds."""
        return {name: difference.error(levels.get(name, 0.0)) for name, difference in self.outputs.items()}

    def told(self) -> str:
        """What is wrong with the first output that has something beyond a number."""
        notes = ((name, difference.told()) for name, difference in self.outputs.items())
        return next((f"{name}: {note}" if len(self.outputs) > 1 else note for name, note in notes if note), "")
