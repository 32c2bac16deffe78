"""The emulated kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.emulated import SANITIZE
from tests.sanitizers import linux_with_gcc, sanitized_environment

HERE = Path(__file__).parent
FAMILIES = sorted(path.stem for path in HERE.glob("test_*.py") if path.stem not in ("test_sanitizers", "test_compile"))


@pytest.mark.slow
@linux_with_gcc
@pytest.mark.parametrize("family", FAMILIES)
def test_no_kernel_does_what_is_undefined(family: str) -> None:
    environment = {**sanitized_environment(), SANITIZE: "1"}
    command = [sys.executable, "-m", "pytest", "-qxs", "-p", "no:cacheprovider", str(HERE / f"{family}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
