"""Progress callbacks: long functions report, the command line draws."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on; `total` is None where it is not known. Raising stops the work cleanly."""

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...


def silent(stage: str, done: int, total: int | None) -> None:
    """The default: reports nothing."""
