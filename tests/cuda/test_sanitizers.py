"""The emulated kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.emulated import SANITIZE

HERE = Path(__file__).parent
FAMILIES = sorted(path.stem for path in HERE.glob("test_*.py") if path.stem not in ("test_sanitizers", "test_compile"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="preloads GCC's sanitizer")
@pytest.mark.parametrize("family", FAMILIES)
def test_no_kernel_does_what_is_undefined(family: str) -> None:
    preload = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0,abort_on_error=0,exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        SANITIZE: "1",
    }
    command = [sys.executable, "-m", "pytest", "-qxs", "-p", "no:cacheprovider", str(HERE / f"{family}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
