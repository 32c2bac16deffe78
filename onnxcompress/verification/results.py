"""What `verify` found, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["pass", "fail", "skipped"]
Measured = float | int | str | None


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        measured: a number, or words; None where nothing was measured. Infinite: not finite where the original is.
        limit: what `measured` was held against; None where there is no number to hold.
        bound: whether `measured` must be at least or at most the limit.
        note: why it failed or was skipped, or what to know of it.
    """

    section: str
    name: str
    outcome: Outcome
    measured: Measured = None
    limit: float | None = None
    bound: Literal["", "at least", "at most"] = ""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinite numbers: they are words there."""
        row = asdict(self)
        if isinstance(self.measured, float) and not math.isfinite(self.measured):
            row["measured"] = str(self.measured)
        return row


@dataclass(frozen=True)
class Verification:
    """What `verify` gives back.

    Attributes:
        original, result: paths; empty for models in memory, `original` also where there was none.
        feeds: of the data that the models were run on.
        sampled: of those, the ones that were perturbed.
        seed: of the choice of those and of the noise.
    """

    original: str
    result: str
    checks: tuple[Check, ...]
    feeds: int = 0
    sampled: int = 0
    seed: int = 0

    @property
    def passed(self) -> bool:
        """Did no check fail?"""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "fail")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1, "original": self.original, "result": self.result, "passed": self.passed,
            "feeds": self.feeds, "sampled": self.sampled, "seed": self.seed,
            "checks": [check.as_dict() for check in self.checks],
        }  # fmt: skip


def at_least(section: str, name: str, measured: float, limit: float, note: str = "") -> Check:
    """Passes when `measured` is a number and not below the limit."""
    outcome: Outcome = "pass" if measured >= limit else "fail"
    return Check(section, name, outcome, measured, limit, "at least", note)


def at_most(section: str, name: str, measured: float, limit: float, note: str = "") -> Check:
    """Passes when `measured` is a number and not above the limit."""
    outcome: Outcome = "pass" if measured <= limit else "fail"
    return Check(section, name, outcome, measured, limit, "at most", note)


def stated(section: str, name: str, problems: str, measured: Measured = None, note: str = "") -> Check:
    """Passes when there are no problems to tell."""
    return Check(section, name, "fail" if problems else "pass", measured, note=problems or note)


def skipped(section: str, name: str, reason: str, measured: Measured = None) -> Check:
    return Check(section, name, "skipped", measured, note=reason)


def worst(errors: Mapping[str, float]) -> tuple[float, str]:
    """The largest error and its output; the name is empty where there is one output only."""
    name = max(errors, key=lambda output: (math.isnan(errors[output]), errors[output]))
    return errors[name], name if len(errors) > 1 else ""
