"""Memory that was freed in pieces goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys
import weakref

import pytest

from onnxcompress.memory import give_back, giving_back

PIECES = """
import sys
from onnxcompress.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

pieces = [bytearray(100_000) for _ in range(1000)]  # below what glibc maps by itself
kept = pieces[-1]
full = resident()
del pieces
freed = resident()
give_back()
print((full - freed) // 1_000_000, (full - resident()) // 1_000_000)
"""


class Ring:
    def __init__(self) -> None:
        self.itself = self


def test_circles_are_let_go() -> None:
    ring = weakref.ref(Ring())
    give_back()
    assert ring() is None


def test_what_a_function_leaves_is_given_back() -> None:
    rings: list[weakref.ref[Ring]] = []

    def make(fails: bool) -> int:
        rings.append(weakref.ref(Ring()))
        return 1 // (not fails)

    assert giving_back(make, fails=False) == 1
    with pytest.raises(ZeroDivisionError):
        giving_back(make, True)
    assert rings[0]() is None and len(rings) == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_pieces_go_back_to_the_system() -> None:
    out = subprocess.run([sys.executable, "-c", PIECES], capture_output=True, text=True, check=True).stdout
    before, after = map(int, out.split())
    assert before < 20 and after > 80
