"""Memory that the C library keeps: blocks of tens of megabytes that were freed one by one."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def give_back() -> None:
    """Give freed memory back to the system: after a stage that took and freed gigabytes in pieces.

    Without it glibc holds on to most of what a training took, and the next stage's comes on top.
    """
    gc.collect()  # modules and sessions hang together in circles
    with contextlib.suppress(OSError, AttributeError):  # not glibc: it has its own ways
        ctypes.CDLL(None).malloc_trim(0)


def giving_back(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function, then give back what it left."""
    try:
        return function(*args, **kwargs)
    finally:
        give_back()
