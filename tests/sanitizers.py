"""Running Python with a library that GCC's sanitizers watch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

linux_with_gcc = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("g++"), reason="preloads GCC's sanitizer"
)


def sanitized_environment() -> dict[str, str]:
    """Variables for a Python process in which AddressSanitizer is loaded first.

    The C++ runtime too: AddressSanitizer finds its __cxa_throw when it starts, and Python itself does not link it.
    """
    preload = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0,abort_on_error=0,exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
