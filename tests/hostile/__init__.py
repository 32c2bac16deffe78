"""Files that no sane program wrote, each with the error that it must end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bad:
    """A bad input.

    Attributes:
        name: for pytest.
        write: makes it in a folder, and gives the path to hand to a command.
        error: a regular expression that the one line of the error matches.
    """

    name: str
    write: Callable[[Path], Path]
    error: str


def content(name: str, file: str, data: bytes | str, error: str) -> Bad:
    """A bad input that is known beforehand."""

    def write(folder: Path) -> Path:
        path = folder / file
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return Bad(name, write, error)
