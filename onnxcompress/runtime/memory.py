"""Memory of this process, where the operating system tells."""

from __future__ import annotations

import contextlib
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def present_memory() -> int | None:
    """Bytes resident now; None where that cannot be had."""
    return _status("VmRSS")


def peak_memory() -> int | None:
    """Bytes resident at the most since the process began, or since `reset_peak`; None where it cannot be had.

    Not from getrusage: on Linux that starts from the peak of the process that started this one.
    """
    return _status("VmHWM")


def reset_peak() -> None:
    """Count the peak from now on; without effect where the system does not allow it."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def _status(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
