"""The time that a command may take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

SAFETY = 1.25
"""Steps are taken to last this much longer than they did before: the machine's speed varies."""


class OutOfTime(Exception):
    """What comes next would not end within the budget."""


@dataclass
class Budget:
    """Seconds to spend, and what must be kept for the end.

    Attributes:
        seconds: from the start to the end of the command; infinite: no budget.
        reserve: seconds that the last steps will take.
        started: by `time.monotonic`.
    """

    seconds: float = math.inf
    reserve: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def limited(self) -> bool:
        return math.isfinite(self.seconds)

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def left(self) -> float:
        """Seconds that are left before the last steps; may be negative."""
        return self.seconds - self.spent() - SAFETY * self.reserve

    def need(self, seconds: float = 0.0) -> None:
        """Raise OutOfTime unless a step that should take `seconds` can end before the last steps begin."""
        if SAFETY * seconds > self.left():
            raise OutOfTime
