"""When training makes a student worse than it came, and what is done about it: a smaller learning rate.

Networks differ: those whose BatchNormalization was folded into the weights can blow up at a rate that others need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FIRST, RECENT = 8, 8
"""Losses of steps that tell where a run began, and where it is: batches differ, threefold where some are hard."""

FIRST_SHARE = 0.01
"""Of the learning rate, while the first losses are taken: they are those of the student as it came."""

WORSE = 2.0
"""Times the greatest loss at the beginning that is too much."""

SMALLER = 0.3
"""Each time, the learning rate becomes this share of what it was."""

MOST = 5
"""How often it does."""


@dataclass
class Guard:
    """Watches the loss.

    Attributes:
        first: losses of the first steps.
        recent: losses of the last steps.
        times: how often the learning rate was made smaller.
        wanted: how many first losses are taken.
    """

    first: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    times: int = 0
    wanted: int = FIRST

    @classmethod
    def of(cls, steps: int | None) -> Guard:
        """For a run of so many steps, if that is known: at most a tenth of them goes into the first losses."""
        return cls(wanted=FIRST if steps is None else min(FIRST, max(1, steps // 10)))

    @property
    def factor(self) -> float:
        """Of the highest learning rate."""
        return SMALLER**self.times

    @property
    def share(self) -> float:
        """Of the learning rate, for the next step."""
        return 1.0 if len(self.first) >= self.wanted else FIRST_SHARE

    @property
    def gives_up(self) -> bool:
        """No smaller rate is left to try."""
        return self.times >= MOST

    def is_blown_up(self, loss: float) -> bool:
        """Take in the loss of a step. Is it no number, or are the last ones far above the first?"""
        if not math.isfinite(loss):
            return True
        if len(self.first) < self.wanted:
            self.first.append(loss)
            return False
        self.recent = [*self.recent, loss][-RECENT:]
        # Where there are fewer than RECENT yet, one that is very far above is enough.
        return sum(self.recent) / RECENT > WORSE * max(self.first) and not self.gives_up

    def back_off(self) -> None:
        """Go on with a smaller rate."""
        self.times += 1
        self.recent = []
