"""Ctrl-C: the first stops the search, and what was found is written whole; a second ends at once.

SIGTERM counts as Ctrl-C. Handlers are put back at the end, and are left alone where others were installed, or
outside the main thread.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupts:
    """Counts signals, and raises KeyboardInterrupt or puts it off, as the phase of the work demands."""

    def __init__(self) -> None:
        self.count = 0
        self._tolerated = 0
        self._held = False

    @classmethod
    @contextlib.contextmanager
    def handled(cls) -> Iterator[Interrupts]:
        """Handle signals within the context."""
        interrupts = cls()
        previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (int(signal.SIGINT), int(signal.SIGTERM)):
                if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                    previous[number] = signal.signal(number, interrupts._handle)
        try:
            yield interrupts
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def finishing(self) -> None:
        """From now on the work ends by itself in short: one signal in all is tolerated, the second raises."""
        self._tolerated = 1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No signal raises within; one that would have does at the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if not self._held and self.count > self._tolerated:
            raise KeyboardInterrupt
